"""Why a recording is not taken, a clip not scored, or a machine told of: the words of REJECTS, UNSCORED and DRIFT."""

REJECTED = {
    "unreadable": "the object or file could not be read",
    "not_audio": "no audio decoder recognises the content",
    "unsupported_codec": "the content is neither WAV nor FLAC",
    "truncated": "the header promises more samples than the file holds",
    "streamed": "the header does not say how many samples there are",
    "false_header": "what the header says of its samples contradicts itself or the samples",
    "no_samples": "the file holds no samples",
    "not_finite": "a sample is NaN or infinite",
    "silent": "all samples are equal",
    "too_short": "shorter than the shortest clip taken",
    "too_long": "longer than the longest clip taken",
    "absurd_format": "sample rate or channel count out of bounds",
    "name_fits_no_layout": "the path does not follow the layout's naming",
    "missing": "listed, but not there",
    "no_file": "a FIFO, socket or device, a folder that cannot be listed, or a link to one that is listed anyway",
    "duplicate": "the same content as another clip, and duplicates were not wanted",
    "renamed": "an anonymous clip of a machine whose test clips lie named in test_rename/ beside it",
    "not_an_archive": "called a zip file, but without a directory that can be read",
    "archive_escape": "an archive member whose name or link would leave the archive's folder",
    "archive_bomb": "an archive or member that expands beyond a limit, or a member that shares bytes with another",
    "archive_member": "an archive member that is encrypted, oddly compressed, damaged, or there twice",
}

ACCEPTABLE = ("streamed",)
"""Of these, what `ingest --accept` takes all the same."""

UNSCORED = {
    "recording_gone": "the recording is not where CLIPS says",
    "recording_unreadable": "the recording is there, but may not be read",
    "recording_changed": "the recording is not the one that was ingested",
    "recording_damaged": "the recording cannot be decoded",
    "no_channel": "the recording lacks the channel that is heard",
    "dead_channel": "the channel that is heard is constant throughout the recording",
    "no_vector": "its embedding is not finite, or has no direction to compare",
    "no_bank": "the detector holds nothing of its machine type and section",
    "learning": "the detector holds too few clips of its machine type and section to compare with",
}

DRIFTED = {
    "sample_rate": "most recordings have another sample rate than those of earlier nights",
    "length": "recordings are longer or shorter than on earlier nights",
    "level": "recordings are louder or quieter than on earlier nights",
    "clipped": "more samples are at full scale than on earlier nights: the recorder cannot hold what it hears",
    "repeated": "recordings have the content of other ones of the same night, or all of them that of an earlier one",
    "unscored": "more recordings could not be scored than on earlier nights",
    "rejected": "more files were no recordings that are taken than on earlier nights",
    "scores": "scores are higher or lower than on earlier nights, of machines that do not alarm",
    "embeddings": "recordings are nearest to other healthy ones than on earlier nights, of machines that do not alarm",
    "calibration": "scores are not what those of the healthy clips were that thresholds were made of",
}
