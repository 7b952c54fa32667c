"""An export holds a network, its weights and what belongs to them, and nothing of this machine."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from kernels.errors import NasError
from search_spaces.architecture import Architecture
from search_spaces.build import build
from search_spaces.export import programs
from search_spaces.export.compare import compare
from search_spaces.export.load import load
from search_spaces.export.values import Facts, Figure, Preprocessing
from search_spaces.export.write import Order, export_network, read_manifest
from tests.exporting import reloaded_differences, trained

TEXT = (
    "input 3x6x6; conv 8 k3 bn relu; sliding 8 bn; dropout p0.1 path; add @1,3; gap; flatten; "
    "linear 3"
)
NET = Architecture.parse(TEXT)
IMAGES = Preprocessing((3, 6, 6), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), ("cat", "dog", "a/b"))
FACTS = Facts(
    "digits, network 12",
    "digits",
    12,
    {"accuracy": Figure(0.91, 0.88, 0.93, "share of the validation split"), "params": Figure(1e3)},
    {"recipe": "digits-short", "epochs": 24},
    {"name": "digits"},
    {"device": "cpu (of the study)"},
)
EVERY = Order("plain", ("python", "pt2", "onnx"), FACTS, IMAGES)
PLAIN_FILES = {
    *("model.py", "model.pt2", "model.onnx", "model.safetensors", "example.safetensors"),
    *("reload.py", "architecture.json", "preprocessing.json", "model_card.md", "export.json"),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("export") / "best"
    export_network(NET, trained(NET), directory, EVERY)
    return directory


def _python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-B", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_every_file_is_there(exported: Path) -> None:
    assert {item.name for item in exported.iterdir()} == PLAIN_FILES
    assert set(read_manifest(exported)["files"]) == PLAIN_FILES - {"export.json"}


def test_the_folder_checks_itself_from_anywhere(exported: Path, tmp_path: Path) -> None:
    done = _python(str(exported / "reload.py"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["python", "pt2", "onnx"]
    assert all("same outputs" in line for line in lines)


def test_the_folder_tells_of_other_outputs(exported: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    source = (copy / "model.py").read_text()
    assert "nn.ReLU(inplace=True)" in source
    (copy / "model.py").write_text(source.replace("nn.ReLU(inplace=True)", "nn.SiLU()"))
    done = _python("reload.py", "--format", "python", cwd=copy)
    assert done.returncode == 1
    assert "OTHER OUTPUTS" in done.stdout


def test_reloaded_formats_give_the_outputs_of_the_module(tmp_path: Path) -> None:
    found = reloaded_differences([NET], tmp_path, ("python", "pt2", "onnx"))
    assert set(found) == {(0, "python"), (0, "pt2"), (0, "onnx")}
    assert all(isinstance(item, float) and item <= 1e-5 for item in found.values()), found


def test_a_packed_export_keeps_the_kernels(tmp_path: Path) -> None:
    found = reloaded_differences([NET], tmp_path, ("python", "pt2", "safetensors"), form="packed")
    assert all(isinstance(item, float) and item <= 1e-5 for item in found.values()), found
    source = (tmp_path / "net0" / "model.py").read_text()
    assert "from kernels.sliding_channel.module import SlidingChannelConv2d" in source
    with zipfile.ZipFile(tmp_path / "net0" / "model.pt2") as archive:
        graph = archive.read(next(n for n in archive.namelist() if n.endswith("models/model.json")))
    assert b"paretonas.sliding_channel_conv2d" in graph


def test_weights_by_themselves_say_that_they_need_the_package(tmp_path: Path) -> None:
    export_network(NET, trained(NET), tmp_path / "out", Order(to=("safetensors",)))
    assert not {"model.py", "model.pt2"} & {item.name for item in (tmp_path / "out").iterdir()}
    code = (
        "import sys; sys.modules['search_spaces'] = None; sys.path.insert(0, '.'); import reload; "
        "reload.check(reload.present())"
    )
    done = _python("-c", code, cwd=tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("or export again with --to python.")
    assert "Traceback" not in done.stderr


def test_a_packed_export_says_what_it_needs(tmp_path: Path) -> None:
    export_network(NET, trained(NET), tmp_path / "out", Order("packed", ("python", "pt2")))
    code = (
        "import sys; sys.modules['kernels'] = None; sys.path.insert(0, '.'); import reload; "
        "reload.load_model()"
    )
    done = _python("-c", code, cwd=tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("pip install paretonas")
    assert "Traceback" not in done.stderr


def test_a_packed_export_says_that_its_device_is_missing(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    export_network(NET, trained(NET), tmp_path / "out", Order("packed", ("python",)))
    manifest = json.loads((tmp_path / "out" / "export.json").read_text())
    (tmp_path / "out" / "export.json").write_text(json.dumps({**manifest, "device": "cuda"}))
    places = [".", str(Path(__file__).parents[3])]
    code = f"import sys; sys.path[:0] = {places}; import reload; reload.load_model()"
    done = _python("-c", code, cwd=tmp_path / "out")
    assert done.returncode == 1
    assert "CUDA device" in done.stderr
    assert "Traceback" not in done.stderr


def test_files_import_torch_and_the_standard_library_alone(exported: Path) -> None:
    allowed = {"torch", "math", "fractions", "argparse", "json", "struct", "sys", "pathlib"}
    allowed |= {"collections", "importlib", "onnxruntime", "PIL", "types"}
    for name in ("model.py", "reload.py"):
        tree = ast.parse((exported / name).read_text())
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {item.split(".")[0] for item in names} <= allowed


def _contents(directory: Path) -> dict[str, bytes]:
    """Read all files, and what lies in archives."""
    found = {}
    for path in directory.iterdir():
        found[path.name] = path.read_bytes()
        if path.suffix == ".pt2":
            with zipfile.ZipFile(path) as archive:
                found |= {f"{path.name}/{name}": archive.read(name) for name in archive.namelist()}
    return found


def test_nothing_names_this_machine(exported: Path) -> None:
    here = {str(Path(__file__).parents[3]), str(Path(sys.prefix)), str(Path.home()) + "/"}
    here |= {"site-packages", "search_spaces.", "/tmp/", str(exported)}
    for name, content in _contents(exported).items():
        for text in here:
            assert text.encode() not in content, f"{text} in {name}"


def test_nothing_is_a_pickle(exported: Path) -> None:
    for name, content in _contents(exported).items():
        assert not name.endswith((".pkl", ".pickle"))
        assert not zipfile.is_zipfile(io.BytesIO(content)) or name == "model.pt2"
        if not name.startswith("model.pt2/archive/data/weights"):
            with pytest.raises(Exception):  # noqa: B017, PT011  (whatever the reader stumbles over)
                pickle.loads(content)


def test_files_have_ordinary_modes(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        export_network(NET, trained(NET), tmp_path / "out", Order(to=("python", "pt2")))
    finally:
        os.umask(before)
    modes = {item.name: item.stat().st_mode & 0o777 for item in (tmp_path / "out").iterdir()}
    assert set(modes.values()) == {0o644}
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


def test_onnx_is_one_file_with_a_free_batch(exported: Path) -> None:
    import onnx

    model = onnx.load(exported / "model.onnx")
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [item.name for item in model.graph.input] == ["input"]
    assert not any(item.external_data for item in model.graph.initializer)


def test_a_missing_onnx_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NasError, match=r"needs onnx, onnxscript, onnxruntime.*paretonas\[export\]"):
        export_network(NET, trained(NET), tmp_path / "out", Order(to=("onnx",)))
    assert not (tmp_path / "out").exists()


def test_the_description_travels_along(exported: Path) -> None:
    document = json.loads((exported / "architecture.json").read_text())
    assert Architecture.from_json(document) == NET


def test_the_module_is_left_as_it_was(tmp_path: Path) -> None:
    architecture = Architecture.parse("input 1x4x4; conv 2 k3 bn; gap; flatten")
    module = trained(architecture).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    export_network(architecture, module, tmp_path / "out", Order(to=("python", "pt2")))
    assert module.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_exporting_again_replaces_the_folder_whole(tmp_path: Path) -> None:
    target = tmp_path / "best"
    export_network(NET, trained(NET), target)
    (target / "stray").write_text("left over")
    export_network(NET, trained(NET), target)
    assert not (target / "stray").exists()
    assert [item.name for item in tmp_path.iterdir()] == ["best"]


def test_what_a_killed_export_left_is_swept(tmp_path: Path) -> None:
    """Killed between its two renames, an export leaves the old folder aside and none in place."""
    export_network(NET, trained(NET), tmp_path / "best")
    aside = tmp_path / ".best.part"
    (aside / "new").mkdir(parents=True)
    (tmp_path / "best").replace(aside / "old")
    export_network(NET, trained(NET), tmp_path / "best")
    assert [item.name for item in tmp_path.iterdir()] == ["best"]
    assert load(tmp_path / "best")


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NasError, match="cannot be written: Not a directory") as caught:
        export_network(NET, trained(NET), tmp_path / "file" / "best")
    assert "\n" not in str(caught.value)


def test_equal_orders_give_equal_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        export_network(NET, trained(NET), tmp_path / name, Order(facts=FACTS, preprocessing=IMAGES))
    for item in (tmp_path / "one").iterdir():
        assert item.read_bytes() == (tmp_path / "two" / item.name).read_bytes()


# What is refused.


def test_a_folder_of_the_users_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(NasError, match="holds something that is no export"):
        export_network(NET, trained(NET), tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"form": "flat"}, "Unknown form of an export 'flat'"),
        ({"to": ("pt3",)}, "Unknown format of an export 'pt3'.*'pt2'"),
        ({"to": ()}, "Name at least one format"),
        ({"form": "packed", "to": ("python", "onnx")}, "ONNX cannot hold this package's kernels"),
    ],
)
def test_what_cannot_be_ordered_is_one_clear_line(settings: dict[str, str], message: str) -> None:
    with pytest.raises(NasError, match=message) as caught:
        Order(**settings)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["plain", "packed"])
def test_a_variant_that_nothing_executes_is_refused(form: str, tmp_path: Path) -> None:
    varied = NET.with_variant([1], "sparse(density=0.25)")
    with pytest.raises(NasError, match=r"sparse.*nothing here executes that.*dense") as caught:
        export_network(varied, build(NET), tmp_path / "out", Order(form=form))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


# The model card.


def test_the_card_says_what_is_known(exported: Path) -> None:
    card = (exported / "model_card.md").read_text()
    for text in (
        *("# digits, network 12", "study digits, trial 12", TEXT[:40], NET.key, "digits-short"),
        "| accuracy | 0.91 | 0.88 | 0.93 | share of the validation split |",
        *("| params | 1,000 |", "mean 0.1, 0.2, 0.3", "cat, dog", "cpu (of the study)"),
        *("Apache License", "its terms apply", "model.onnx"),
    ):
        assert text in card


def test_a_card_without_a_study_says_so() -> None:
    card = Order().card(NET)
    assert "belongs to no study" in card
    assert "--image" not in card


# Images.


def test_an_image_is_classified_as_the_data_set_would_have(exported: Path, tmp_path: Path) -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (6, 6, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    raw = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(x).reshape(-1, 1, 1) for x in (IMAGES.mean, IMAGES.std))
    with torch.no_grad():
        shares = trained(NET)((raw - mean) / std)[0].softmax(0)
    order = shares.argsort(descending=True)
    expected = [f"{shares[i]:7.2%}  {IMAGES.classes[i]}" for i in order.tolist()]
    for kind in ("python", "onnx"):
        arguments = ("--image", str(tmp_path / "image.png"), "--format", kind)
        done = _python(str(exported / "reload.py"), *arguments, cwd=tmp_path)
        assert done.stdout.splitlines() == expected, done.stderr


def test_an_image_of_another_size_and_mode_is_taken(exported: Path, tmp_path: Path) -> None:
    Image.fromarray(np.arange(800, dtype=np.uint8).reshape(20, 40)).save(tmp_path / "grey.png")
    done = _python(str(exported / "reload.py"), "--image", "grey.png", cwd=tmp_path)
    assert len(done.stdout.splitlines()) == 3, done.stderr


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "Cannot read the image"),
        (lambda folder: (folder / "image.png").write_bytes(b"no image"), "Cannot read the image"),
        (lambda folder: (folder / "preprocessing.json").unlink(), "Nothing is known"),
    ],
    ids=["absent", "damaged", "no preprocessing"],
)
def test_an_image_that_cannot_be_read_is_one_line(
    exported: Path, tmp_path: Path, prepare: object, message: str
) -> None:
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    prepare(copy)  # type: ignore[operator]
    done = _python("reload.py", "--image", "image.png", cwd=copy)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert "Traceback" not in done.stderr


# Reading a folder back with this project.


def test_an_export_is_loaded_without_running_its_code(exported: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    (copy / "model.py").write_text("raise SystemExit('it ran')")
    x = torch.randn(5, 3, 6, 6)
    module = load(copy)
    assert not module.training
    torch.testing.assert_close(module(x), trained(NET)(x))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "export.json").unlink(), "holds no export"),
        (lambda folder: (folder / "export.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "export.json").write_text('{"schema": 99}'), "schema 99"),
        (lambda folder: (folder / "export.json").write_text('{"schema": 1}'), "cannot be read"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "changed or damaged"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be read"),
        (lambda folder: (folder / "architecture.json").write_text("{}"), "changed or damaged"),
    ],
    ids=["no manifest", "no JSON", "newer", "no keys", "damaged", "no weights", "other network"],
)
def test_a_folder_that_cannot_be_loaded_says_why(
    exported: Path, tmp_path: Path, damage: object, message: str
) -> None:
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    damage(copy)  # type: ignore[operator]
    with pytest.raises(NasError, match=message) as caught:
        load(copy)
    assert "\n" not in str(caught.value)


# Differences.


def test_networks_are_compared_node_by_node() -> None:
    first = Architecture.parse("input 3x8x8; conv 4 k3 bn relu; conv 4 k3 bn; gap; flatten")
    second = Architecture.parse("input 3x8x8; conv 4 k3 bn relu; conv 4 k5 bn; gap; flatten")
    found = compare(first, second)
    assert [line.mark for line in found.lines] == [" ", " ", "~", " ", " "]
    changed = found.lines[2]
    assert (changed.first, changed.second) == ("conv 4 k3 bn, 4x8x8", "conv 4 k5 bn, 4x8x8")
    assert found.params == (first.params, second.params)
    assert f"parameters: {first.params:,} -> {second.params:,}" in str(found)
    assert all(line.mark == " " for line in compare(first, first).lines)


def test_a_node_that_was_added_or_removed_is_named() -> None:
    short = Architecture.parse("input 3x8x8; conv 4 bn; gap; flatten")
    long = Architecture.parse("input 3x8x8; conv 4 bn; maxpool k2 s2; gap; flatten")
    assert [line.mark for line in compare(short, long).lines if line.first == ""] == ["+"]
    assert [line.mark for line in compare(long, short).lines if line.second == ""] == ["-"]


def test_networks_that_differ_in_an_edge_alone_are_not_alike() -> None:
    first, second = (
        Architecture.parse(
            "input 4x8x8; conv 4 k3; conv 4 k5; conv 4 k7; " + f"add @{edge},3; gap; flatten"
        )
        for edge in (1, 2)
    )
    assert first != second
    (line,) = [line for line in compare(first, second).lines if line.mark != " "]
    assert (line.first, line.second) == ("add, 4x8x8, of -3 and -1", "add, 4x8x8, of -2 and -1")


def test_weights_of_another_precision_are_reloaded_as_they_are(tmp_path: Path) -> None:
    module: nn.Module = trained(NET).double()
    found = reloaded_differences([NET], tmp_path, ("python",), modules=[module])
    assert all(isinstance(item, float) and item <= 1e-12 for item in found.values()), found
