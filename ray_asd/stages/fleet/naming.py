"""What users name detectors by, looked at before anything is read: a registry, a version of it, an output of enroll."""

from collections.abc import Sequence

from ray_asd import build, store
from ray_asd.errors import UserError, unknown
from ray_asd.stages.fleet import registry


def registry_of(uri: str) -> str:
    """The registry that ``uri`` is, or names a version of.

    Raises:
        UserError: it does neither.
    """
    return registry.opened(registry.parts(store.absolute(uri))[0])


def check(uri: str, versions: Sequence[str] = ()) -> None:
    """Return when ``uri`` names a detector, and its registry has ``versions``, as far as names tell.

    Raises:
        UserError: it does not.
    """
    uri = store.absolute(uri)
    place, name = registry.parts(uri)
    if not registry.is_registry(place):
        if versions:
            raise UserError(
                f"--shadow {','.join(versions)}: {uri} is no registry; allowed there: a registry's versions"
            )
        if not build.find(uri):
            registry.detector(uri)  # which says what is allowed
        return
    known = registry.numbered(place)
    if not name and registry.newest(place) is None:
        registry.current(place)
    for wanted in filter(None, (name, *versions)):
        if wanted not in known:
            raise unknown(f"version of {place}", wanted, known or ["none: it has no versions"])
