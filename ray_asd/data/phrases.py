"""What is found in a recording, in the words of one plain sentence."""

from ray_asd.data.findings import Finding

_EVERYWHERE = "at all frequencies"
_AT_EDGE = 1.1  # factor within which a band ends where all bands do


def in_words(found: Finding, whole: tuple[float, float]) -> str:
    """A finding of a recording that was compared over ``whole``, from and to in Hz."""
    side = "above" if found.decibels > 0 else "below"
    parts = [_what(found, whole), f"{abs(found.decibels):.0f} dB {side} its nearest normals", _when(found)]
    return ", ".join(part for part in parts if part)


def and_also(sentence: str, level: float) -> str:
    """The sentence of a recording that differs in level too, by so many dB; 0: it does not."""
    if not level:
        return sentence
    return f"{sentence}; besides, {'louder' if level > 0 else 'quieter'} throughout by {abs(level):.0f} dB"


def mixture(first: float, second: float | None) -> str:
    """Of a recording that differs nowhere more than normals do, most of all near these frequencies in Hz."""
    near = hertz(first) if second is None else " and ".join(hertz(value) for value in sorted((first, second)))
    return f"no single band stands out: the mix differs, most near {near}, by no more than among its nearest normals"


def hertz(value: float) -> str:
    """A frequency with two or three digits."""
    return f"{value / 1000:.1f} kHz" if value >= 995 else f"{float(f'{value:.2g}'):.0f} Hz"


def _what(found: Finding, whole: tuple[float, float]) -> str:
    where = _where(found.band, whole)
    if found.kind == "knocks":
        if found.rate is None:
            return f"irregular knocks, {where}"
        return f"knocks, {found.rate:.{0 if found.rate >= 3 else 1}f} a second, {where}"
    if found.kind == "burst":
        return f"a short burst, {where}"
    if found.tones:
        names = [hertz(tone) for tone in found.tones]
        near = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
        tone = f"a tone near {near}" if len(names) == 1 else f"tones near {near}"
        return f"{tone} missing" if found.kind == "missing" else tone
    if where == _EVERYWHERE:
        return f"quieter {where}" if found.kind == "missing" else f"louder {where}"
    return f"less sound {where}" if found.kind == "missing" else f"noise {where}"


def _where(band: tuple[float, float], whole: tuple[float, float]) -> str:
    low, high = band
    at_low, at_high = low <= whole[0] * _AT_EDGE, high >= whole[1] / _AT_EDGE
    if at_low and at_high:
        return _EVERYWHERE
    if at_high:
        return f"above {hertz(low)}"
    if at_low:
        return f"below {hertz(high)}"
    if hertz(low) == hertz(high) or high < 1.15 * low:
        return f"near {hertz((low * high) ** 0.5)}"
    return f"{hertz(low)} to {hertz(high)}"


def _when(found: Finding) -> str:
    if found.when == "quiet":
        return "in its quiet moments"
    if found.when == "scattered":
        return f"on and off, most at {found.seconds[0]:.1f} to {found.seconds[1]:.1f} s"
    if found.when == "throughout":
        return "throughout"
    return f"{found.seconds[0]:.1f} to {found.seconds[1]:.1f} s"
