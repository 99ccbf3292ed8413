import itertools

import numpy as np
import pytest

from ray_asd.config import SAMPLE_RATE
from ray_asd.data.fleet import MACHINES
from ray_asd.data.machines import Fault

SAMPLES = 6 * SAMPLE_RATE
FAULTS = [(machine, kind) for machine, description in MACHINES.items() for kind in description.faults]


def sound(machine: str, attributes: dict[str, str], kind: str | None, severity: float) -> np.ndarray:
    fault = Fault(kind, severity, np.random.default_rng(1))
    return MACHINES[machine].sound(attributes, fault, SAMPLES, np.random.default_rng(0))


def test_the_seven_machine_types_of_the_challenge() -> None:
    assert set(MACHINES) == {"bearing", "fan", "gearbox", "slider", "ToyCar", "ToyTrain", "valve"}


@pytest.mark.parametrize("machine", MACHINES)
def test_a_target_condition_is_never_a_source_condition(machine: str) -> None:
    source, target = (MACHINES[machine].conditions(domain) for domain in ("source", "target"))
    assert len(source) > len(target) > 1
    assert all(list(condition) == list(source[0]) for condition in source + target)
    assert not [condition for condition in target if condition in source]


@pytest.mark.parametrize("machine", MACHINES)
def test_a_target_place_is_never_a_source_place(machine: str) -> None:
    description = MACHINES[machine]
    source, target = (
        {description.place(condition, domain) for condition in description.conditions(domain)}
        for domain in ("source", "target")
    )
    assert source | target == set(description.places.values())
    assert not source & target


@pytest.mark.parametrize("machine", MACHINES)
def test_every_condition_sounds(machine: str) -> None:
    for condition in itertools.chain(*map(MACHINES[machine].conditions, ("source", "target"))):
        heard = sound(machine, condition, None, 0.0)
        assert np.isfinite(heard).all()
        assert 0.2 < np.std(heard) < 3.0


@pytest.mark.parametrize(("machine", "kind"), FAULTS)
def test_a_fault_of_severity_0_is_the_healthy_sound_and_grows_from_there(machine: str, kind: str) -> None:
    condition = MACHINES[machine].conditions("source")[0]
    healthy = sound(machine, condition, None, 0.0)
    deviations = [np.std(sound(machine, condition, kind, severity) - healthy) for severity in (0.0, 0.5, 1.0, 2.0)]
    assert deviations[0] == 0.0
    assert deviations[1] > 0.0
    assert deviations == sorted(deviations)
