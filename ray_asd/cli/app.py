"""The root of the command line, and what its commands share."""

import os
from collections.abc import Callable, Sequence

import click

from ray_asd import __version__, config, store
from ray_asd.config import Resources
from ray_asd.engine.patience import WAIT_VARIABLE
from ray_asd.errors import UserError


class _InOrderOfUse(click.Group):
    """Help lists the commands in the order of their modules, not by letter."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrderOfUse, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__)
@click.option(
    "--wait",
    type=click.FloatRange(0, min_open=True),
    metavar="MINUTES",
    help="For room on the cluster; then exit code 75.",
)
def cli(wait: float | None) -> None:
    """Anomalous sound detection with large pre-trained audio models, as distributed batch jobs on Ray."""
    if wait is not None:
        os.environ[WAIT_VARIABLE] = str(wait)


def command(example: str) -> Callable[[Callable[..., None]], click.Command]:
    """A command named by the first word of its example, which its help shows on one line of its own."""
    return cli.command(example.split()[0], epilog=f"\b\nExample: ray-asd {example}")


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one machine-readable summary line last on stdout."
)
out_option = click.option(
    "--out", "root", metavar="ROOT", required=True, help="Where outputs live: a local path or s3://."
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Print what would be done, where and on what; do nothing."
)
clips_option = click.option("--clips", metavar="URI", required=True, help="CLIPS: an output of ingest.")
set_option = click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Override one setting; repeatable."
)
model_option = click.option("--model", metavar="URI", required=True, help="An output of train, or spectral or log-mel.")
recipe_for_use_option = click.option("--recipe", help="Take inference, scoring and resources from this recipe.")


def resources(overrides: Sequence[str], why: str) -> Resources:
    """What workers take, with overrides of the form ``resources.key=value``.

    Raises:
        UserError: an override of anything else, which cannot be chosen here, and ``why`` not.
    """
    for override in overrides:
        if not override.startswith("resources."):
            raise UserError(f"--set {override}: {why}; allowed: resources.KEY=VALUE")
    return config.usage(config.Usage(), tuple(overrides)).resources


def existing(root: str) -> str:
    """``root`` made absolute.

    Raises:
        UserError: nothing is there.
    """
    root = store.absolute(root)
    if not store.is_folder(root):
        raise UserError(f"{root}: no such folder; allowed: a ROOT that earlier commands wrote to")
    return root
