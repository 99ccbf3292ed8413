"""The material of each year as its organisers publish it, small: an evaluator's folder with one system in ``teams/``.

Each maker returns the figure that the year's own script gives: both files sorted by name, values zipped, scikit-learn.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import stats
from sklearn.metrics import roc_auc_score

CLIPS = 16  # of a section and, in 2021, domain


def write(path: Path, rows: list[tuple[object, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Anomalies, domains, scores and decisions of a section."""
    random = np.random.default_rng(seed)
    anomaly, target = random.permutation(np.arange(CLIPS) % 2), random.permutation(np.arange(CLIPS) // (CLIPS // 2))
    return anomaly, target, anomaly * 0.4 + random.random(CLIPS), random.integers(0, 2, CLIPS)


def auc(anomaly: np.ndarray, score: np.ndarray, most: float | None = None) -> float:
    return float(roc_auc_score(anomaly, score, max_fpr=most))


def of_2020(folder: Path) -> float:
    """One list at the top, ``anomaly_score_fan_id_01.csv`` in ``teams/``; no decisions."""
    listed: list[tuple[object, ...]] = []
    means = []
    for number, machine in enumerate(("ToyCar", "pump")):
        listed.append((machine,))
        own = []
        for machine_id in ("05", "07"):
            anomaly, _, score, _ = drawn(10 * number + int(machine_id))
            names = [f"id_{machine_id}_{clip:08d}.wav" for clip in range(CLIPS)]
            told = [f"{('normal', 'anomaly')[a]}_{name}" for a, name in zip(anomaly, names, strict=True)]
            listed += list(zip(names, told, anomaly, strict=True))
            scored = list(zip(names, score, strict=True))[::-1]
            write(folder / "teams" / "we" / f"anomaly_score_{machine}_id_{machine_id}.csv", scored)
            own += [auc(anomaly, score), auc(anomaly, score, 0.1)]
        means.append(np.mean(own))
    write(folder / "eval_data_list.csv", listed)
    return float(np.mean(means))


def of_2021(folder: Path) -> float:
    """A file of each domain; nothing says domains but the names."""
    figures = []
    for machine in ("gearbox", "valve"):
        for section in ("03", "05"):
            for domain in ("source", "target"):
                anomaly, _, score, decision = drawn(len(figures))
                names = [f"section_{section}_{domain}_test_{clip:04d}.wav" for clip in range(CLIPS)]
                end = f"{machine}_section_{section}_{domain}_test.csv"
                write(folder / "ground_truth_data" / f"ground_truth_{end}", list(zip(names, anomaly, strict=True)))
                write(folder / "teams" / "we" / f"anomaly_score_{end}", list(zip(names, score, strict=True)))
                write(folder / "teams" / "we" / f"decision_result_{end}", list(zip(names, decision, strict=True)))
                figures += [auc(anomaly, score), auc(anomaly, score, 0.1)]
    return float(stats.hmean(figures))


def later(
    folder: Path, machines: dict[str, list[str]], attributes: Callable[[Path, str, str, list[str]], None]
) -> float:
    """From 2022 on: labels, domains and, as ``attributes`` writes them, telling names; sections by machine."""
    figures, seed = [], 0
    for machine, sections in machines.items():
        for section in sections:
            seed += 1
            anomaly, target, score, decision = drawn(seed)
            names = [f"section_{section}_{clip:04d}.wav" for clip in range(CLIPS)]
            told = [
                f"section_{section}_{('source', 'target')[t]}_test_{('normal', 'anomaly')[a]}_{clip:04d}"
                for clip, (a, t) in enumerate(zip(anomaly, target, strict=True))
            ]
            end = f"{machine}_section_{section}_test.csv"
            write(folder / "ground_truth_data" / f"ground_truth_{end}", list(zip(names, anomaly, strict=True)))
            write(folder / "ground_truth_domain" / f"ground_truth_{end}", list(zip(names, target, strict=True)))
            attributes(folder / "ground_truth_attributes", machine, section, told)
            write(folder / "teams" / "we" / "one" / f"anomaly_score_{end}", list(zip(names, score, strict=True)))
            write(folder / "teams" / "we" / "one" / f"decision_result_{end}", list(zip(names, decision, strict=True)))
            for domain in (0, 1):
                own = (anomaly == 1) | (target == domain)
                figures.append(auc(anomaly[own], score[own]))
            figures.append(auc(anomaly, score, 0.1))
    return float(stats.hmean(figures))


def clip_name(section: str, clip: int) -> str:
    return f"section_{section}_{clip:04d}.wav"


def in_columns(folder: Path, machine: str, section: str, told: list[str]) -> None:
    """2022: a folder of each machine, parameters and values, the telling path last, under a header."""
    rows: list[tuple[object, ...]] = [("file_name", "d1p", "d1v", "file_name_with_full_attributes")]
    for clip, name in enumerate(told):
        rows.append(
            (f"{machine}/test/{clip_name(section, clip)}", "spd", clip % 3, f"{machine}/test/{name}_spd_{clip % 3}.wav")
        )
    write(folder / machine / f"attributes_{section}.csv", rows)


def in_two(folder: Path, machine: str, section: str, told: list[str]) -> None:
    """2023 and 2025: the name, and the telling one."""
    rows = [(clip_name(section, clip), f"{name}_vel_{clip % 4}") for clip, name in enumerate(told)]
    write(folder / f"ground_truth_{machine}_section_{section}_test.csv", rows)


def in_three(folder: Path, machine: str, section: str, told: list[str]) -> None:
    """2024: of HoveringDrone the attributes came later, in a third cell; of RoboticArm no name says test."""
    if machine != "HoveringDrone":
        told = [name.replace("_test_", "_") for name in told] if machine == "RoboticArm" else told
        in_two(folder, machine, section, told)
        return
    rows = [
        (clip_name(section, clip), f"{name}_noAttribute", f"{name}_hv_{clip}.wav") for clip, name in enumerate(told)
    ]
    write(folder / f"ground_truth_{machine}_section_{section}_test.csv", rows)


YEARS: dict[str, tuple[Callable[[Path], float], str]] = {
    "2020": (of_2020, "dcase2020"),
    "2021": (of_2021, "dcase2021"),
    "2022": (lambda folder: later(folder, {"bearing": ["03", "04"], "fan": ["05"]}, in_columns), "dcase2023"),
    "2023": (lambda folder: later(folder, {"Vacuum": ["00"], "grinder": ["00"]}, in_two), "dcase2023"),
    "2024": (lambda folder: later(folder, {"HoveringDrone": ["00"], "RoboticArm": ["00"]}, in_three), "dcase2023"),
    "2025": (lambda folder: later(folder, {"AutoTrash": ["00"], "ToyPet": ["00"]}, in_two), "dcase2023"),
}
