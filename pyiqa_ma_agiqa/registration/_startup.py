"""Adds the metric ma_agiqa to pyiqa when pyiqa is imported; PYIQA_MA_AGIQA_DISABLE=1 turns it off."""

# setup.py writes the source of this file into the start-up file `pyiqa_ma_agiqa.pth`, which
# every Python process of the environment runs. So it stands alone (the package may have been
# removed around the start-up file), imports only what Python has loaded by then, prints and
# raises nothing, and is short: each process compiles it anew. `plugin.py` has the rest.
import _thread
import os
import sys


class Finder:
    extends_pyiqa = (
        "pyiqa.default_model_configs",
        "pyiqa.utils.registry",
        "pyiqa.models.inference_model",
    )
    searching: frozenset = frozenset()

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        # Nothing is imported here: Python holds its one lock of all imports, and another thread that
        # imports our package would wait for that lock while this one waits for the package.
        search = _thread.get_ident(), name
        if name not in cls.extends_pyiqa or search in cls.searching:
            return None
        cls.searching |= {search}  # another finder may ask all finders, as this one does
        try:
            for finder in list(sys.meta_path):
                if hasattr(finder, "find_spec") and not hasattr(finder, "extends_pyiqa"):
                    spec = finder.find_spec(name, path, target)
                    if spec is not None:
                        if hasattr(spec.loader, "exec_module"):
                            spec.loader = Loader(spec.loader)
                        return spec
        finally:
            cls.searching -= {search}


class Loader:
    # The loader it is given, plus our entries once the module has run. It takes itself out of the
    # module first, so that nothing of it is seen afterwards.
    def __init__(self, loader):
        self.loader = loader

    def __getattr__(self, name):
        if name == "loader":  # not yet set, as in a copy
            raise AttributeError(name)
        return getattr(self.loader, name)

    def exec_module(self, module):
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        self.loader.exec_module(module)
        try:
            from pyiqa_ma_agiqa.registration.plugin import extend

            extend(module)
        except Exception as error:  # our fault must not be pyiqa's
            uninstalled = getattr(error, "name", 0) == "pyiqa_ma_agiqa"
            if Finder.extends_pyiqa and not uninstalled:
                import warnings

                Finder.extends_pyiqa = ()  # said once
                warnings.warn(f"no metric ma_agiqa, reinstall pyiqa-ma-agiqa: {error!r}", stacklevel=1)


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
