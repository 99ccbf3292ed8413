"""Everything once, for a newcomer."""

import click

from ray_asd import store
from ray_asd.cli import morning, nights
from ray_asd.cli.app import command, json_option, resources, set_option
from ray_asd.cli.console import Progress, Result, summary
from ray_asd.cli.pages import Pages


@command("demo --out ray_asd_demo")
@click.option("--out", "root", metavar="DIR", default="ray_asd_demo", show_default=True, help="Where everything goes.")
@click.option("--nightly", is_flag=True, help="Five nights of a small plant instead, one of whose machines fails.")
@click.option("--seed", default=0, show_default=True, help="Of the fleet and of the training.")
@set_option
@json_option
def demo(root: str, nightly: bool, seed: int, overrides: tuple[str, ...], as_json: bool) -> None:
    """Run everything once on a simulated fleet: no download, no GPU, a few minutes."""
    from ray_asd.stages import demo as stage

    root = store.absolute(root)
    with summary("demo", root, as_json) as result:
        store.check_writable(root)
        if nightly:
            _nights(result, root, seed, overrides, as_json)
            return
        outputs = stage.run(root, seed, overrides, Progress())
        metrics, place = [outputs["metrics"]], store.join(root, "report")
        written = Pages(metrics, place).publish(root)
        result.outputs = {
            "recordings": stage.place(root, seed),
            **{name: output.uri for name, output in outputs.items()},
            "report": written.files["report"],
        }
        result.reused = all(output.reused for output in outputs.values())
        click.echo(written.table, err=as_json)


def _nights(result: Result, root: str, seed: int, overrides: tuple[str, ...], as_json: bool) -> None:
    """Each night, and what the last one's morning looks like."""
    from ray_asd.data import units
    from ray_asd.stages import demo_nights as stage

    progress, chosen = Progress(), resources(overrides, "no recipe is used")
    recordings = stage.place(root, seed)
    fleet = stage.prepare(root, seed, chosen, progress)
    result.reused = True
    for day, ended in stage.nights(fleet, stage.plant(seed), recordings, progress):
        for line in nights.told(fleet, day, ended):
            click.echo(line, err=True)
        if ended.night:
            nights.note(result, fleet, ended.night)
        result.reused &= ended.reused
    written = morning.write(fleet.uri)
    click.echo("\n".join(written.digest), err=as_json)
    result.outputs |= {"recordings": recordings, "faults": store.join(recordings, units.FAULTS), "page": written.page}
