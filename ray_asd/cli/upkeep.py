"""What lies below a root: look, trace, clear away; and weights of one's own."""

from collections.abc import Sequence

import click

from ray_asd import build
from ray_asd.build import archive
from ray_asd.cli.app import command, dry_run_option, existing, json_option
from ray_asd.cli.console import summary
from ray_asd.cli.fleet import list_versions


@command("fetch-weights facebook/hubert-base-ls960 --to s3://models/hubert-base")
@click.argument("model")
@click.option("--to", metavar="URI", required=True, help="A local path or s3://, later the recipe's backbone.source.")
@click.option("--revision", help="Commit, tag or branch on the hub; by default its main branch.")
@json_option
def fetch_weights(model: str, to: str, revision: str | None, as_json: bool) -> None:
    """Copy MODEL (a hub checkpoint, a folder or s3://) to one place of your own, pinned at its commit."""
    from ray_asd.models import checkpoints

    with summary("fetch-weights", None, as_json) as result:
        copy = checkpoints.mirror(model, revision, to)
        result.outputs, result.counts, result.reused = {"weights": copy.uri}, {"files": copy.files}, copy.reused


@command("ls runs")
@click.argument("root")
@json_option
def ls(root: str, as_json: bool) -> None:
    """List the finished stages below ROOT, or the versions and the history of a registry, oldest first."""
    from ray_asd.stages.fleet import registry

    with summary("ls", None, as_json) as result:
        root = existing(root)
        if registry.is_registry(root):
            list_versions(root, as_json, result)
            return
        found = archive.outputs(root)
        if as_json:
            result.outputs = _by_folder(found)
            return
        for output in found:
            marker = output.marker
            counts = ", ".join(f"{name} {count}" for name, count in sorted(marker.counts.items()))
            click.echo(f"{marker.started_at:%Y-%m-%d %H:%M}  {marker.seconds:8.1f} s  {output.uri}  {counts}")


@command("show runs/train/hubert-WS-seed0-0123456789ab")
@click.argument("uri")
@json_option
def show(uri: str, as_json: bool) -> None:
    """Print the marker of one output as JSON, and the outputs it was made from; REGISTRY@v3 is an output too."""
    from ray_asd.stages.fleet import registry

    with summary("show", None, as_json) as result:
        named = registry.detector(uri) if registry.names_version(uri) else archive.find(uri)
        output, *parents = archive.lineage(named)
        click.echo(output.marker.model_dump_json(indent=2))
        if as_json:
            result.outputs, result.counts = _by_folder([output, *parents]), output.marker.counts
            return
        for number, parent in enumerate(parents, start=1):
            click.echo(f"from {number}: {parent.uri}", err=True)


def _by_folder(outputs: Sequence[build.Output]) -> dict[str, str]:
    return {"/".join(output.uri.split("/")[-2:]): output.uri for output in outputs}


@command("gc runs --keep runs/score/hubert-WS-seed0-0123456789ab --dry-run")
@click.argument("root")
@click.option("--keep", metavar="URI", multiple=True, help="Remove finished outputs too, but for this and its origins.")
@click.option("--older-than", type=click.FloatRange(0), default=24, show_default=True, help="Hours without a write.")
@dry_run_option
@json_option
def gc(root: str, keep: tuple[str, ...], older_than: float, dry_run: bool, as_json: bool) -> None:
    """Remove what killed runs left below ROOT, and, with --keep, what neither the kept outputs nor any night needs."""
    from ray_asd.stages.fleet import manifests

    root = existing(root)
    with summary("gc", None if dry_run else root, as_json) as result:
        nights = manifests.named(root) if keep else []
        found = archive.leftovers(root, [*keep, *nights], older_than * 3600)
        for leftover in found:
            click.echo(f"{'would remove' if dry_run else 'remove'} {leftover.uri}: {leftover.why}", err=True)
            if not dry_run:
                archive.remove(leftover)
        result.counts = {"removed": 0 if dry_run else len(found), "found": len(found)}
