import io
import itertools
import pickle
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import soundfile

from ray_asd import reasons
from ray_asd.data import audio
from ray_asd.data.audio import BadAudio, Limits
from ray_asd.errors import UserError

RATE = 16_000
SHORTEST_WAV_HEADER = 44  # bytes; fields: 4 RIFF size, 20 codec, 22 channels, 24 rate, 32 block, 34 bits, 40 data size


def noise(samples: int = 4000, channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.9, 0.9, (samples, channels))


def encode(waveform: np.ndarray, rate: int = RATE, file_format: str = "WAV", subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, subtype, format=file_format)
    return file.getvalue()


def patch(data: bytes, offset: int, layout: str, value: int) -> bytes:
    packed = struct.pack(layout, value)
    return data[:offset] + packed + data[offset + len(packed) :]


def flac_total(data: bytes, total: int) -> bytes:
    """The FLAC file with another number of samples in its STREAMINFO."""
    packed = int.from_bytes(data[18:26], "big") >> 36 << 36
    return data[:18] + (packed | total).to_bytes(8, "big") + data[26:]


def verdict(data: bytes, limits: Limits = audio.DEFAULT_LIMITS) -> BadAudio:
    """What ``inspect`` says of a damaged file."""
    with pytest.raises(BadAudio) as inspected:
        audio.inspect(data, limits)
    assert inspected.value.reason in reasons.REJECTED
    return inspected.value


WAV = audio.encode_wav(noise(channels=2), RATE)
FLAC = encode(noise(), file_format="FLAC")


@pytest.mark.parametrize(
    ("file_format", "bits"),
    [*itertools.product(["WAV", "WAVEX", "RF64"], [16, 24, 32]), ("FLAC", 16), ("FLAC", 24)],
)
def test_integers_are_scaled_by_their_full_scale(file_format: str, bits: int) -> None:
    subtype = f"PCM_{bits}"
    integers = np.array([0, 1, -1, 5, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1] * 500)
    data = encode((integers << (32 - bits)).astype(np.int32), file_format=file_format, subtype=subtype)
    np.testing.assert_array_equal(audio.decode(data, 0), (integers / 2 ** (bits - 1)).astype(np.float32))
    found = replace(audio.inspect(data), level=None, clipped=None)
    assert found == audio.AudioInfo(RATE, 1, 3000, file_format, subtype)


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_float_files_come_back_as_they_are_beyond_full_scale_too(subtype: str) -> None:
    waveform = (3 * noise()[:, 0]).astype(np.float32)
    np.testing.assert_array_equal(audio.decode(audio.encode_wav(waveform, RATE, subtype), 0), waveform)


def test_eight_bits_are_unsigned_in_wav() -> None:
    data = audio.encode_wav(np.array([0.5, -0.5] * 2000), RATE, "PCM_U8")
    assert audio.decode(data, 0)[:2].tolist() == [0.5, -0.5]


def test_channels_are_picked_or_averaged() -> None:
    waveform = noise(channels=3).astype(np.float32)
    data = audio.encode_wav(waveform, RATE, "FLOAT")
    np.testing.assert_array_equal(audio.decode(data, 2), waveform[:, 2])
    np.testing.assert_allclose(audio.decode(data, "mean"), waveform.mean(axis=1), atol=1e-7)
    assert audio.inspect(data).channels == 3


@pytest.mark.parametrize(
    ("level", "subtype", "container"), [(0.0, "PCM_16", "WAV"), (-0.5, "PCM_24", "FLAC"), (0.25, "DOUBLE", "WAV")]
)
def test_channels_without_sound_are_told(level: float, subtype: str, container: str) -> None:
    waveform = noise(channels=5)
    waveform[:, [0, 3]] = level
    info = audio.inspect(audio.encode(waveform, RATE, container, subtype))
    assert (info.channels, info.dead_channels) == (5, (0, 3))
    waveform[-1, 3] = -level if level else 0.01  # one sample is sound
    assert audio.inspect(audio.encode(waveform, RATE, container, subtype)).dead_channels == (0,)


@pytest.mark.parametrize("channel", [2, -1, "left"])
def test_a_channel_that_is_not_there_is_the_users_mistake(channel: int) -> None:
    with pytest.raises(UserError, match=rf"'{channel}'; allowed: 0, 1, mean"):
        audio.decode(WAV, channel)


@pytest.mark.parametrize("rate", [8000, 11_025, 16_001, 17_067, 22_050, 44_100, 48_000, 51_200, 96_000, 383_999])
def test_resampling_keeps_what_fits_and_removes_what_does_not(rate: int) -> None:
    seconds = np.arange(rate) / rate
    low, high = 0.88 * min(rate, RATE) / 2, 1.02 * RATE / 2
    tones = [np.sin(2 * np.pi * frequency * seconds) for frequency in (100, low, high)]
    heard = [
        audio.decode(audio.encode_wav(tone, rate, "DOUBLE"), 0) for tone in (tones if rate > 16_640 else tones[:2])
    ]
    assert all(len(wave) == RATE for wave in heard)
    middle, again = slice(1000, -1000), np.arange(RATE) / RATE
    for frequency, wave in zip((100, low), heard, strict=False):
        waves = np.stack([np.sin(2 * np.pi * frequency * again), np.cos(2 * np.pi * frequency * again)], axis=1)
        (in_phase, aside), *_ = np.linalg.lstsq(waves[middle], wave[middle])
        assert in_phase == pytest.approx(1, abs=1.2e-3)  # 0.01 dB
        assert abs(aside) < 1e-5  # nothing is early or late
        assert np.abs(wave - waves @ (in_phase, aside))[middle].max() < 3e-5
    for wave in heard[2:]:
        assert np.abs(wave[middle]).max() < 1e-4


@pytest.mark.parametrize("rate", [8000, 17_067, 44_100])
def test_resampling_rounds_the_length_up_and_is_repeatable(rate: int) -> None:
    waveform = noise(rate // 3)[:, 0].astype(np.float32)
    first, second = (audio.resample(waveform, Fraction(RATE, rate)) for _ in range(2))
    assert len(first) == -(-len(waveform) * RATE // rate)
    assert first.dtype == np.float32
    assert first.tobytes() == second.tobytes()


def test_resampling_is_the_same_on_every_thread() -> None:
    waveforms = [noise(30_000, seed=seed)[:, 0].astype(np.float32) for seed in range(8)]
    ratios = [Fraction(10, 9), Fraction(16_000, 44_100), Fraction(16_000, 16_001), Fraction(2)]
    work = [(waveform, ratio) for ratio in ratios for waveform in waveforms]
    alone = [audio.resample(*each).tobytes() for each in work]
    with ThreadPoolExecutor(4) as threads:
        assert [wave.tobytes() for wave in threads.map(lambda each: audio.resample(*each), work)] == alone


def test_blocks_join_without_a_seam() -> None:
    waveform = noise(2 * audio.BLOCK + 17)[:, 0].astype(np.float32)
    np.testing.assert_array_equal(audio.decode(audio.encode_wav(waveform, RATE, "FLOAT"), 0), waveform)


def test_chunks_around_the_samples_are_skipped() -> None:
    extra = b"junk" + struct.pack("<I", 3) + b"abc\0"
    data = WAV[:12] + extra + WAV[12:] + extra
    data = patch(data, 4, "<I", len(data) - 8)
    np.testing.assert_array_equal(audio.decode(data, 1), audio.decode(WAV, 1))
    assert audio.inspect(data).num_samples == 4000


_FLAC_IN_ID3 = ("unsupported_codec", "FLAC behind an ID3 tag, which FLAC has not got, as it begins with b'ID3'")


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"", "not_audio", "0 bytes"),
        (b"hello, this is text" * 100, "not_audio", "hello"),
        (bytes(5000), "not_audio", "5000 bytes"),
        (encode(noise(), file_format="OGG", subtype="VORBIS"), "unsupported_codec", "Ogg"),
        (encode(noise(), file_format="AIFF"), "unsupported_codec", "AIFF"),
        (b"ID3\x04\x00\x00\x00\x00\x01\x02" + bytes(130) + encode(noise(), file_format="FLAC"), *_FLAC_IN_ID3),
        (b"ID3\x04\x00\x00\x00\x00\x01\x02" + bytes(130) + b"\xff\xfb", "unsupported_codec", "MP3, as it begins"),
        (b"\x00\x00\x00\x18ftypM4A " + bytes(99), "unsupported_codec", "MP4, as M4A and 3GP are"),
        (b"BW64\xff\xff\xff\xffWAVEds64" + bytes(99), "unsupported_codec", "BW64, as it begins with b'BW64'"),
        (b"\xff\xe3\x18\xc4" + bytes(99), "unsupported_codec", "MP3"),
        (b"#!AMR\n" + bytes(99), "unsupported_codec", "AMR"),
        (audio.encode_wav(noise(), RATE, "ALAW"), "unsupported_codec", "0x0006"),
        (audio.encode_wav(noise(), RATE, "ULAW"), "unsupported_codec", "0x0007"),
        (audio.encode_wav(noise(), RATE, "IMA_ADPCM"), "unsupported_codec", "0x0011"),
        (encode(noise(), file_format="WAVEX", subtype="ULAW"), "unsupported_codec", "0x0007"),
        (patch(WAV, 34, "<H", 24), "false_header", "24 bits in blocks of 4 bytes for 2"),
        (WAV[: len(WAV) // 2], "truncated", "promises 16000 bytes of samples, 7978 are there"),
        (WAV[:-1], "truncated", "15999 are there"),
        (WAV[:SHORTEST_WAV_HEADER], "truncated", "0 are there"),
        (WAV[:40], "truncated", "found: fmt"),
        (patch(WAV, 40, "<I", 4_000_000_000), "truncated", "4000000000"),
        (FLAC[: len(FLAC) // 2], "truncated", "of 4000 samples"),
        (FLAC[:30], "truncated", "inside the FLAC header"),
        (FLAC[:4000] + bytes(50) + FLAC[4050:], "truncated", "of 4000 samples"),
        (flac_total(FLAC, 4001), "truncated", "of 4001 samples"),
        (flac_total(FLAC, 2**36 - 1), "truncated", "can hold"),
        (flac_total(FLAC, 0), "streamed", "never filled in"),
        (audio.encode_wav(noise(0), RATE), "no_samples", "promises no samples"),
        (audio.encode_wav(np.zeros(4000), RATE), "silent", "equal [0.0]"),
        (audio.encode_wav(np.full((4000, 2), 0.5), RATE), "silent", "equal [0.5, 0.5]"),
        (audio.encode_wav(np.r_[noise()[:, 0], np.nan], RATE, "FLOAT"), "not_finite", "samples 0 to 4001"),
        (audio.encode_wav(np.r_[noise()[:, 0], -np.inf], RATE, "DOUBLE"), "not_finite", "NaN"),
        (audio.encode_wav(np.r_[noise()[:, 0], 1e30], RATE, "FLOAT"), "not_finite", "magnitude"),
        (audio.encode_wav(noise(1599), RATE), "too_short", "0.0999 s; allowed: from 0.1 s"),
        (patch(WAV, 24, "<I", 0), "absurd_format", "0 Hz"),
        (patch(WAV, 24, "<I", 999), "absurd_format", "allowed: 1000 to 384000"),
        (patch(WAV, 24, "<I", 10**9), "absurd_format", "1000000000 Hz"),
        (patch(WAV, 22, "<H", 0), "absurd_format", "0 channels"),
        (patch(WAV, 22, "<H", 65), "absurd_format", "65 channels"),
        (patch(WAV, 32, "<H", 0), "false_header", "blocks of 0 bytes"),
        (patch(WAV, 16, "<I", 4), "truncated", "found"),
    ],
)
def test_damage_is_named(data: bytes, reason: str, detail: str) -> None:
    error = verdict(data)
    assert (error.reason, detail in error.detail) == (reason, True), str(error)


def test_the_limits_are_inclusive() -> None:
    limits = Limits(min_seconds=0.25, max_seconds=0.25)
    assert audio.inspect(audio.encode_wav(noise(4000), RATE), limits).num_samples == 4000
    assert verdict(audio.encode_wav(noise(3999), RATE), limits).reason == "too_short"
    assert verdict(audio.encode_wav(noise(4001), RATE), limits).reason == "too_long"


def test_too_long_is_told_from_the_header_alone() -> None:
    cut = FLAC[:-100]
    assert verdict(cut).reason == "truncated"
    assert verdict(cut, Limits(max_seconds=0.2)).reason == "too_long"


def test_decode_refuses_what_inspect_refuses_except_silence() -> None:
    for data in (WAV[:-1], FLAC[:-100], audio.encode_wav(noise(10), RATE), b"text"):
        with pytest.raises(BadAudio) as decoded:
            audio.decode(data, 0)
        assert str(decoded.value) == str(verdict(data))
    assert not audio.decode(audio.encode_wav(np.zeros(4000), RATE), 0).any()


@pytest.mark.parametrize("whole", [WAV, FLAC, encode(noise(1700), file_format="RF64")], ids=["WAV", "FLAC", "RF64"])
def test_no_beginning_of_a_file_passes_for_all_of_it(whole: bytes) -> None:
    for length in [*range(120), *range(120, len(whole), 211), len(whole) - 1]:
        assert verdict(whole[:length]).reason in ("truncated", "not_audio"), length


def test_random_damage_ends_in_a_verdict_or_a_recording() -> None:
    random = np.random.default_rng(1)
    seen = set()
    for whole in (WAV, FLAC, encode(noise(1700), file_format="WAVEX", subtype="PCM_24")):
        for _ in range(150):
            data = bytearray(whole)
            for position in random.integers(0, 64, 3):
                data[position] = random.integers(0, 256)
            try:
                seen.add("a recording" if audio.inspect(bytes(data)).num_samples else "nothing")
            except BadAudio as error:
                seen.add(error.reason)
    assert "a recording" in seen
    assert len(seen) >= 5
    assert seen - {"a recording"} <= set(reasons.REJECTED)


def test_the_verdict_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(BadAudio("truncated", "half of it")))
    assert (error.reason, error.detail, str(error)) == ("truncated", "half of it", "truncated: half of it")


def test_content_hash() -> None:
    assert audio.content_hash(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
