"""Files of random weights where pyiqa, timm, torchvision and CLIP look for those they have downloaded.

Within `random_files(folder)` a file that one of them asks for is written first, if it is not there, with
the names, shapes and precision that the real one has. Then the library's own code finds it and reads it,
as it reads the real one of an earlier download. Nothing is downloaded: a file of which the content is not
known is an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import huggingface_hub.constants
import timm
import torch
from pyiqa.archs import arch_util, clip_model
from pyiqa.utils import download_util
from safetensors.torch import save_file
from torchvision import models


def _metaiqa() -> dict[str, torch.Tensor]:
    from pyiqa.archs.metaiqa_arch import MetaIQA

    return MetaIQA(pretrained=False).state_dict()


def _arniqa() -> dict[str, torch.Tensor]:
    encoder = torch.nn.Sequential(*list(models.resnet50().children())[:-1])
    return {f"model.{name}": value for name, value in encoder.state_dict().items()}


OTHER_FILES: dict[str, Callable[[], Any]] = {
    "CLIP-IQA%2B_learned_prompts-603f3273.pth": lambda: torch.randn(16, 512),
    "Metaiqa_livec.pth": _metaiqa,
    "ARNIQA.pth": _arniqa,
    "regressor_koniq10k.pth": lambda: torch.jit.trace(torch.nn.Linear(4096, 1), torch.zeros(1, 4096)),
}
"""Files that pyiqa reads by itself rather than through `load_pretrained_network`."""
_TEXT = {"context_length": 77, "vocab_size": 49408, "transformer_layers": 12}
CLIPS: dict[str, dict[str, Any]] = {
    "RN50": dict(embed_dim=1024, vision_layers=(3, 4, 6, 3), vision_width=64, vision_patch_size=None)
    | dict(transformer_width=512, transformer_heads=8),
    "ViT-B/32": dict(embed_dim=512, vision_layers=12, vision_width=768, vision_patch_size=32)
    | dict(transformer_width=512, transformer_heads=8),
    "ViT-L/14": dict(embed_dim=768, vision_layers=24, vision_width=1024, vision_patch_size=14)
    | dict(transformer_width=768, transformer_heads=12),
}
"""OpenAI's CLIP (Radford et al., ICML 2021, appendix F) as `pyiqa.archs.clip_model` builds it."""


def _write(path: Path, content: Callable[[], Any], save: Callable[[Any, Path], None] = torch.save) -> None:
    """A file that is whole when it is there; none that is there is written again."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    save(content(), part)
    part.rename(path)


def _save(content: Any, path: Path) -> None:
    """A scripted module as such, everything else as a pickle."""
    if isinstance(content, torch.jit.ScriptModule):
        torch.jit.save(content, str(path))
    else:
        torch.save(content, path)


def _clip(name: str) -> torch.nn.Module:
    """CLIP in half precision as a scripted module, which is how OpenAI's files hold it."""
    if name not in CLIPS:
        raise OSError(f"CLIP {name}: not among {', '.join(CLIPS)}")
    model = clip_model.CLIP(image_resolution=224, **_TEXT, **CLIPS[name])
    clip_model.convert_weights(model)
    root = torch.nn.Module()
    for key, value in model.state_dict().items():
        *path, leaf = key.split(".")
        place = root
        for part in path:
            if part not in place._modules:
                place.add_module(part, torch.nn.Module())
            place = place._modules[part]
        place.register_buffer(leaf, value)
    return torch.jit.script(root)


class _Clips(dict):
    """Addresses of CLIP's files, which end with their SHA-256 and name; each is written when asked for."""

    def __init__(self, folder: Path, addresses: dict[str, str]) -> None:
        super().__init__(addresses)
        self.folder = folder

    def __getitem__(self, name: str) -> str:
        path = self.folder / Path(super().__getitem__(name)).name
        _write(path, lambda: _clip(name), lambda module, part: torch.jit.save(module, str(part)))
        told = path.with_suffix(".sha256")
        _write(told, path.read_bytes, lambda data, part: part.write_text(hashlib.sha256(data).hexdigest()))
        return f"https://x/{told.read_text()}/{path.name}"


def _timm(folder: Path) -> Callable[..., torch.nn.Module]:
    create = timm.create_model

    def create_model(name: str, pretrained: bool = False, **options: Any) -> torch.nn.Module:
        if not pretrained:
            return create(name, **options)
        path = folder / "timm" / f"{name}.safetensors"
        _write(path, lambda: create(name).state_dict(), save_file)
        return create(name, pretrained=True, pretrained_cfg_overlay={"file": str(path)}, **options)

    return create_model


def _torchvision(folder: Path) -> Callable[..., Any]:
    read = models.WeightsEnum.get_state_dict

    def get_state_dict(self: models.WeightsEnum, *args: Any, **options: Any) -> Any:
        name = next(name for name in models.list_models() if models.get_model_weights(name) is type(self))
        path = folder / "checkpoints" / Path(self.url).name
        _write(path, lambda: models.get_model(name).state_dict())
        return read(self, *args, **options)

    return get_state_dict


def _pyiqa_weights(folder: Path) -> Callable[..., None]:
    load = arch_util.load_pretrained_network

    def load_pretrained_network(
        net: torch.nn.Module, model_path: str, strict: bool = True, weight_keys: str | None = None
    ) -> None:
        if model_path.startswith("http"):
            state = net.state_dict
            content = state if weight_keys is None else lambda: {weight_keys: state()}
            _write(folder / Path(model_path).name, content)
        load(net, model_path, strict, weight_keys)

    return load_pretrained_network


def _pyiqa_files(folder: Path) -> Callable[..., str]:
    fetch = download_util.load_file_from_url

    def load_file_from_url(url: str, *args: Any, **options: Any) -> str:
        name = Path(url).name
        if name in OTHER_FILES:
            _write(folder / name, OTHER_FILES[name], _save)
        return fetch(url, *args, **options)

    return load_file_from_url


def _torch_hub(folder: Path) -> Callable[..., Any]:
    load = torch.hub.load_state_dict_from_url

    def load_state_dict_from_url(url: str, *args: Any, **options: Any) -> Any:
        name = Path(url).name
        if name in OTHER_FILES:
            _write(folder / "checkpoints" / name, OTHER_FILES[name])
        return load(url, *args, **options)

    return load_state_dict_from_url


def _refused(url: str, *_: Any, **__: Any) -> None:
    raise OSError(f"no random weights are known for {url}")


@contextlib.contextmanager
def random_files(folder: Path) -> Iterator[None]:
    """Files are written to this folder and read from it; nothing else is.

    Architectures of pyiqa that are used within have to be imported before.
    """
    pyiqa = folder / "pyiqa"
    pyiqa.mkdir(parents=True, exist_ok=True)
    by_name = {
        "load_pretrained_network": _pyiqa_weights(pyiqa),
        "load_file_from_url": _pyiqa_files(pyiqa),
        "DEFAULT_CACHE_DIR": str(pyiqa),
        "download_url_to_file": _refused,
    }
    with contextlib.ExitStack() as stack:

        def patch(where: Any, name: str, value: Any) -> None:
            stack.enter_context(mock.patch.object(where, name, value))

        for key, module in list(sys.modules.items()):
            if key.startswith("pyiqa."):
                for name in by_name.keys() & vars(module).keys():
                    patch(module, name, by_name[name])
            if key in ("pyiqa.archs.clip_model", "clip.clip"):
                root = folder / "clip" if key.startswith("pyiqa") else folder / ".cache" / "clip"
                patch(module, "_MODELS", _Clips(root, module._MODELS))
        patch(timm, "create_model", _timm(folder))
        patch(models.WeightsEnum, "get_state_dict", _torchvision(folder))
        patch(torch.hub, "download_url_to_file", _refused)
        patch(torch.hub, "load_state_dict_from_url", _torch_hub(folder))
        patch(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        stack.enter_context(mock.patch.dict(os.environ, {"HOME": str(folder)}))
        before = torch.hub.get_dir()
        torch.hub.set_dir(str(folder))
        stack.callback(torch.hub.set_dir, before)
        yield
