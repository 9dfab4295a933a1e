"""``pyiqa-ma-agiqa weights``: which weights files there are, where they are, and whether they are whole."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..compact import shipped
from ..errors import WeightsError
from ..published import files
from ..published.files import CHECKPOINT, LANGUAGE_MODEL
from ..weights.manifest import PACKAGE_WEIGHTS_DIR, entry, load_manifest
from ..weights.recorded_hashes import record_of

DESCRIPTION = """\
The weights files: which there are, where they are, and whether they are whole.

    pyiqa-ma-agiqa weights list
    pyiqa-ma-agiqa weights fetch [NAME ...]
    pyiqa-ma-agiqa weights verify [NAME ...]
    pyiqa-ma-agiqa weights import PATH

Those of ma_agiqa come with the package. Those of ma_agiqa_owl2 are fetched when the metric is first
created, or beforehand by `fetch`; where there is no network, fetch them elsewhere, carry them over and
`import` them."""


class Weights(NamedTuple):
    """One entry of the manifest: where it is, and how it is fetched and verified.

    Attributes:
        place: path, or None where it is not on this machine.
        known: whether its SHA-256 is: from the manifest, or recorded when it was checked.
        fetch: fetches it if it is not here.
        verify: checks it in full; raises WeightsError.
    """

    place: Path | None
    known: bool
    fetch: Callable[[], object]
    verify: Callable[[], object]


def _shipped() -> Weights:
    # Always here; where it is not, the installation is damaged, and `verify` says so.
    return Weights(PACKAGE_WEIGHTS_DIR / shipped.NAME, True, shipped.shipped_weights, shipped.shipped_weights)


def _checkpoint() -> Weights:
    path = files.checkpoint_path()
    return Weights(
        path if path.is_file() else None,
        record_of(path).is_file(),
        files.official_checkpoint,
        files.verify_checkpoint,
    )


def _language_model() -> Weights:
    place = files.local_language_model()
    return Weights(
        place,
        record_of(files.model_path()).is_file(),
        lambda: files.language_model(entry(LANGUAGE_MODEL)["hub_id"]),
        lambda: files.verify_language_model(place or Path()),
    )


WEIGHTS: dict[str, Callable[[], Weights]] = {
    shipped.NAME: _shipped,
    CHECKPOINT: _checkpoint,
    LANGUAGE_MODEL: _language_model,
}


def list_weights() -> None:
    """Print every entry of the manifest: its metrics, size, origin, place and state."""
    for facts in load_manifest()["files"]:
        weights = WEIGHTS[facts["name"]]()
        state = "SHA-256 known, `verify` enforces it" if weights.known else "not verified yet"
        print(facts["name"])
        print(f"  metrics  {', '.join(facts['metric_names'])}")
        print(f"  size     {facts.get('approximate_size') or readable(facts['bytes'])}")
        print(f"  source   {facts['sources'][0]}")
        print(f"  licence  {facts['licence']}")
        print(f"  place    {weights.place or 'not on this machine'}")
        if weights.place:
            print(f"  state    {state}")


def readable(size: int) -> str:
    """A size in bytes as a person reads it, such as 91 MB or 1.2 GB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.2g} {unit}" if size < 10 * factor else f"{size / factor:.0f} {unit}"
    return f"{size} bytes"


def fetch(names: list[str]) -> None:
    """Fetch what is not here, and check in full what never was.

    Raises:
        WeightsError: out of reach, or not what it should be.
    """
    for name in names:
        WEIGHTS[name]().fetch()
        weights = WEIGHTS[name]()
        if not weights.known:
            weights.verify()
        print(f"{name}: {weights.place}")


def verify(names: list[str]) -> bool:
    """Check weights in full; whether all are good.

    Args:
        names: which must be here; none for all that are.
    """
    good = True
    for name in names or WEIGHTS:
        weights = WEIGHTS[name]()
        if weights.place is None:
            print(f"{name}: not on this machine")
            good = good and not names
            continue
        try:
            weights.verify()
            print(f"{name}: good ({weights.place})")
        except WeightsError as error:
            good = False
            print(f"{name}: {error}")
    return good


def import_weights(path: Path) -> Path:
    """Copy a checkpoint file, or the folder of a large model, into its place, checked.

    Raises:
        WeightsError: it is neither, or there is no room.
    """
    if path.is_dir():
        return files.import_language_model(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file or folder; check the path")
    return files.import_checkpoint(path)


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of argparse."""
    parser = commands.add_parser(
        "weights",
        help="list, fetch, verify and import weights files",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="what there is, and where")
    for name, text in (
        ("fetch", "fetch what ma_agiqa_owl2 needs and is not here"),
        ("verify", "check in full: those named, or all that are here"),
    ):
        action = actions.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example: pyiqa-ma-agiqa weights {name} {CHECKPOINT}",
        )
        action.add_argument("names", nargs="*", metavar="NAME", help="as `list` prints it; default: all")
    action = actions.add_parser(
        "import",
        help="bring in a file or folder fetched elsewhere",
        epilog=f"example: pyiqa-ma-agiqa weights import Downloads/{CHECKPOINT}",
    )
    action.add_argument("path", type=Path, help="the checkpoint's file, or the large model's folder")


def run(options: argparse.Namespace) -> int:
    """Do it; returns the exit status, 1 for damaged weights.

    Raises:
        PluginError: not done; the message says why.
    """
    if options.action == "list":
        list_weights()
    elif options.action == "import":
        print(import_weights(options.path))
    else:
        unknown = [name for name in options.names if name not in WEIGHTS]
        if unknown:
            raise WeightsError(f"{', '.join(unknown)}: no such weights; there are {', '.join(WEIGHTS)}")
        if options.action == "fetch":
            fetch(options.names or [CHECKPOINT, LANGUAGE_MODEL])
        elif not verify(options.names):
            return 1
    return 0
