"""Adds the metric ma_agiqa to pyiqa when pyiqa is imported; PYIQA_MA_AGIQA_DISABLE=1 turns it off."""

# setup.py writes the source of this file into the start-up file `pyiqa_ma_agiqa.pth`, which
# every Python process of the environment runs. So it stands alone (the package may have been
# removed around the start-up file), imports only what Python has loaded by then, prints and
# raises nothing, and is short: each process compiles it anew. `import_hook.py` has the rest.
import os
import sys


class Finder:
    extends_pyiqa = (
        "pyiqa.default_model_configs",
        "pyiqa.utils.registry",
        "pyiqa.models.inference_model",
    )

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in Finder.extends_pyiqa:
            try:
                from pyiqa_ma_agiqa.registration.import_hook import find_spec
            except Exception as error:
                if getattr(error, "name", 0) != "pyiqa_ma_agiqa":  # else uninstalled: nothing to report
                    import warnings

                    Finder.extends_pyiqa = ()  # said once
                    warnings.warn(f"no metric ma_agiqa, reinstall pyiqa-ma-agiqa: {error!r}", stacklevel=1)
                return None
            return find_spec(name, path, target)


def install():
    # Another one may be that of a start-up file from before an upgrade, with fewer modules, or one that
    # looks for the rest where it was then.
    def key(finder):
        return getattr(finder, "__module__", 0), getattr(finder, "extends_pyiqa", 0)

    if key(Finder) not in map(key, sys.meta_path):
        sys.meta_path.insert(0, Finder)


def start():
    try:
        if os.environ.get("PYIQA_MA_AGIQA_DISABLE", "") in ("", "0"):
            install()
    except Exception:
        pass
