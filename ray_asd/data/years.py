"""What tells the known data sets apart, as data: DCASE Task 2 of each year, MIMII, a flat folder, CSV files, own names.

A form is a regular expression for a path relative to the source; its groups are fields of ``layouts.ParsedClip``, and
``attr_NAME`` is the attribute NAME. No path fits two forms of recognisable layouts. Numbers need four digits or more:
they may begin at 0001 and go beyond what a year announced. The words ``train`` and ``test`` may be missing in a name
(RoboticArm in the ground truth of 2024); ``test_rename/`` is where the organisers' baseline puts named evaluation
clips. Sources: the data sets' descriptions and the organisers' baseline (nttcslab/dcase2023_task2_baseline_ae).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_AUDIO = r"(?i:\.(?:wav|flac))"
_MACHINE = r"(?:.*/)?(?P<machine_type>[^/]+)/"
_SECTION = r"section_(?P<section>\d{2})"
_DOMAIN = r"(?P<domain>source|target)"
_LABEL = r"(?P<label>normal|anomaly)"
_NUMBER = r"_\d{4,}"
_TAIL = r"_(?P<attributes>[^/]*?)"
_TEST = r"(?P<split>test)(?:_rename)?"
_SPLIT_TEST = rf"{_DOMAIN}_(?P<split>test)"
_ID = r"(?P<machine_id>id_(?P<section>(?P<attr_id>\d{2})))"

FORMS: Mapping[str, re.Pattern[str]] = {
    name: re.compile(pattern + _AUDIO, re.ASCII)
    for name, pattern in {
        "train": rf"{_MACHINE}(?P<split>train)/{_SECTION}_{_DOMAIN}(?:_train)?_(?P<label>normal){_NUMBER}(?:{_TAIL})?",
        "test": rf"{_MACHINE}{_TEST}/{_SECTION}_{_DOMAIN}(?:_test)?_{_LABEL}{_NUMBER}",
        "test with attributes": rf"{_MACHINE}{_TEST}/{_SECTION}_{_DOMAIN}(?:_test)?_{_LABEL}{_NUMBER}{_TAIL}",
        "test by domain": rf"{_MACHINE}{_SPLIT_TEST}/{_SECTION}_(?P=domain)(?:_test)?_{_LABEL}{_NUMBER}",
        "anonymous": rf"{_MACHINE}(?P<split>test)/{_SECTION}(?:_test)?{_NUMBER}",
        "anonymous by domain": rf"{_MACHINE}{_SPLIT_TEST}/{_SECTION}_(?P=domain)(?:_test)?{_NUMBER}",
        "anonymous with domain": rf"{_MACHINE}(?P<split>test)/{_SECTION}_{_DOMAIN}(?:_test)?{_NUMBER}",
        "supplemental": rf"{_MACHINE}(?P<split>supplemental)/{_SECTION}(?:_[a-zA-Z]+)*?{_NUMBER}(?:{_TAIL})?",
        "id train": rf"{_MACHINE}(?P<split>train)/(?P<label>normal)_{_ID}{_NUMBER}",
        "id test": rf"{_MACHINE}{_TEST}/{_LABEL}_{_ID}{_NUMBER}",
        "id anonymous": rf"{_MACHINE}(?P<split>test)/{_ID}{_NUMBER}",
        "id folder": r"(?:(?:.*/)?(?P<attr_snr>-?\d+)_dB_[^/]+/|.*/)??(?P<machine_type>[^/]+)/"
        rf"{_ID}/(?P<label>normal|abnormal)/\d{{4,}}",
        "flat": r"(?:(?P<split>train|calibration|test|supplemental)/)?"
        r"(?:(?:[^/]+/)*?(?P<label>normal|anomaly|abnormal)/)?(?:[^/]+/)*[^/]+",
    }.items()
}


@dataclass(frozen=True, slots=True)
class Layout:
    """A family of names, and what else tells it from others whose names look alike."""

    forms: tuple[str, ...]  # keys of FORMS
    protocol: str | None = None  # of its official metrics (scoring.protocols); None: not to be detected
    machine_types: frozenset[str] = frozenset()  # of its development and evaluation sets
    sections: tuple[frozenset[str], ...] = ()  # that its sets have, each set as a whole
    attribute_free: frozenset[str] = frozenset()  # machine types whose names hide their attributes
    attribute_csv: bool = True  # attributes_NN.csv comes with it
    names_attributes: bool = False  # by groups called attr_NAME
    holds_out: bool = False  # as many normal clips as there are anomalies become the test's, in order of name


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SECTIONED = ("train", "test", "test with attributes", "anonymous")
_OF_2021 = ("train", "test", "test by domain", "anonymous by domain", "anonymous with domain")
_THREE = (_words("00 01 02"), _words("03 04 05"), _words("00 01 02 03 04 05"))
_ONE = (_words("00"),)
_FIRST_SHOT = "bearing fan gearbox slider ToyCar ToyTrain valve"

LAYOUTS: dict[str, Layout] = {
    "dcase2020": Layout(
        ("id train", "id test", "id anonymous"),
        "dcase2020",
        _words("fan pump slider valve ToyCar ToyConveyor"),
        attribute_csv=False,
        names_attributes=True,
    ),
    "dcase2021": Layout(
        _OF_2021,
        "dcase2021",
        _words("fan gearbox pump slider valve ToyCar ToyTrain"),
        _THREE,
        attribute_csv=False,
    ),
    "dcase2022": Layout(_SECTIONED, "dcase2023", _words(_FIRST_SHOT), _THREE),
    "dcase2023": Layout(
        _SECTIONED,
        "dcase2023",
        _words(f"{_FIRST_SHOT} bandsaw grinder shaker ToyDrone ToyNscale ToyTank Vacuum"),
        _ONE,
    ),
    "dcase2024": Layout(
        _SECTIONED,
        "dcase2023",
        _words(
            f"{_FIRST_SHOT} 3DPrinter AirCompressor BrushlessMotor HairDryer HoveringDrone RoboticArm Scanner "
            "ToothBrush ToyCircuit"
        ),
        _ONE,
        _words("gearbox slider ToyTrain AirCompressor BrushlessMotor HoveringDrone ToothBrush"),
    ),
    "dcase2025": Layout(
        (*_SECTIONED, "supplemental"),
        "dcase2023",
        _words(f"{_FIRST_SHOT} AutoTrash BandSealer CoffeeGrinder HomeCamera Polisher ScrewFeeder ToyPet ToyRCCar"),
        _ONE,
        _words("bearing slider ToyTrain AutoTrash Polisher ScrewFeeder ToyPet"),
    ),
    "dcase2026": Layout(
        (*_SECTIONED, "supplemental"),
        "dcase2023",
        _words(
            "ToyCar ToyCarEmu bearingEmu fan gearboxEmu sliderEmu valveEmu ToyDrone ToothBrush SewingMachine "
            "BlowerDustCollector Sander"
        ),
        _ONE,
    ),
    "mimii": Layout(
        ("id folder",),
        "dcase2020",
        _words("fan pump slider valve"),
        attribute_csv=False,
        names_attributes=True,
        holds_out=True,
    ),
    "flat": Layout(("flat",)),
    "csv": Layout(()),
    "pattern": Layout(()),
}
