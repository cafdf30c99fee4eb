"""Checks that the tensorboard package reads our event files and we read its, and that Pillow reads our pictures.

Usage: metrics_oracle.py METRICS_TOOL [FOLDER_TO_KEEP]
"""

import json
import math
import os
import random
import subprocess
import sys
import tempfile

import numpy
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

TAGS = {
    "train/loss": lambda r: r["loss"],
    "train/aux_loss": lambda r: r.get("aux_loss"),
    "train/grad_norm": lambda r: r.get("grad_norm"),
    "train/lr": lambda r: r["lr"],
    "train/consumed_samples": lambda r: r["consumed_samples"],
    "validation/loss": lambda r: r.get("validation_loss"),
    "validation/perplexity": lambda r: math.exp(r["validation_loss"]) if "validation_loss" in r else None,
    "speed/tokens_per_second_per_device": lambda r: r["tokens_per_second"],
    "speed/tflops_per_device": lambda r: r["tflops_per_second"],
    "speed/mfu": lambda r: r.get("mfu"),
    "speed/seconds_per_step": lambda r: r["seconds"],
    "memory/gib": lambda r: r["memory_bytes"] / 2**30,
    "router/max_load": lambda r: r.get("router_balance", {}).get("max_load"),
    "router/mean_load": lambda r: r.get("router_balance", {}).get("mean_load"),
    "router/idle_share": lambda r: r.get("router_balance", {}).get("idle_share"),
}


def make_records(count):
    random.seed(1)
    records = []
    for step in range(1, count + 1):
        trend = 2.1 + 9.4 * math.exp(-step / 60) + 1.5 * math.exp(-step / 700)
        record = dict(step=step, loss=trend + random.gauss(0, 0.09), lr=3e-4 * min(1, step / 100),
                      tokens_per_second=7000 + random.random() * 500, tflops_per_second=301.25,
                      memory_bytes=70 * 2**30 + step, seconds=1.7, consumed_samples=1024 * step)
        if step % 2:
            record.update(aux_loss=1.0 + random.random() / 10, grad_norm=random.random(), mfu=0.31,
                          router_balance=dict(max_load=1.6, mean_load=1.3, idle_share=0.01))
        if step % 100 == 0:
            record["validation_loss"] = trend + 0.08
        records.append(record)
    return records


def check(tool, folder):
    records = make_records(1500)
    path = os.path.join(folder, "metrics.jsonl")
    with open(path, "w") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    events = os.path.join(folder, "events")
    subprocess.run([tool, "write", path, events], check=True)

    read = EventAccumulator(events, size_guidance={"scalars": 0})
    read.Reload()
    assert set(read.Tags()["scalars"]) == set(TAGS), read.Tags()["scalars"]
    for tag, value_of in TAGS.items():
        expected = [(r["step"], value_of(r)) for r in records if value_of(r) is not None]
        scalars = read.Scalars(tag)
        assert [s.step for s in scalars] == [step for step, _ in expected], tag
        assert [numpy.float32(s.value) for s in scalars] == [numpy.float32(v) for _, v in expected], tag
        assert all(b.wall_time >= a.wall_time for a, b in zip(scalars, scalars[1:])), tag

    with Image.open(os.path.join(events, "loss.png")) as picture:
        assert picture.size == (1600, 896), picture.size
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
        for curve in ((0xA9, 0xC9, 0xE8), (0x1F, 0x5F, 0x9F), (0xD9, 0x54, 0x1E)):
            assert curve in colours, curve
    print(f"{len(records)} steps, {len(TAGS)} tags, picture {os.path.join(events, 'loss.png')}")


def check_resume(tool, folder):
    """A run that was killed behind step 20 and resumed, twice within a second, from its checkpoint of step 15."""
    events = os.path.join(folder, "resumed")
    records = make_records(30)
    path = os.path.join(folder, "part.jsonl")
    for first, end in ((1, 20), (16, 22), (16, 18)):
        with open(path, "w") as file:
            file.writelines(json.dumps({**r, "loss": end}) + "\n" for r in records[first - 1:end])
        subprocess.run([tool, "write", path, events], check=True)
    read = EventAccumulator(events, size_guidance={"scalars": 0}, purge_orphaned_data=True)
    read.Reload()
    found = [(s.step, s.value) for s in read.Scalars("train/loss")]
    assert found == [(step, 20) for step in range(1, 16)] + [(step, 18) for step in range(16, 19)], found
    print("a resumed run shows every step once")


def read_by_us(tool, path, metric):
    lines = subprocess.run([tool, "read", path, metric], check=True, capture_output=True, text=True).stdout
    return [(int(step), float(value)) for step, value in map(str.split, lines.splitlines())]


def check_reading(tool, folder):
    """What Megatron writes, among things that are no scalars, and its log."""
    folder = os.path.join(folder, "megatron")
    random.seed(2)
    losses = {step: numpy.float32(12 * math.exp(-step / 80) + random.random()) for step in range(1, 301)}
    values = {"lm loss": losses, "grad-norm": {step: numpy.float32(step) ** -0.5 for step in losses},
              "lm loss vs samples": {128 * step: 0.0 for step in losses}}
    writer = EventFileWriter(folder)
    for tag, points in values.items():
        for step, value in points.items():
            writer.add_event(Event(step=step, wall_time=1.7e9 + step, summary=Summary(value=[
                Summary.Value(tag="a text", metadata={"summary_description": "x" * step}),
                Summary.Value(tag=tag, simple_value=value, metadata={"display_name": tag})])))
    writer.close()
    assert read_by_us(tool, folder, "loss") == list(losses.items())
    assert read_by_us(tool, folder, "grad_norm") == list(values["grad-norm"].items())
    assert read_by_us(tool, folder, "lr") == []

    log = os.path.join(folder, "log")
    with open(log, "w") as file:
        file.writelines(f" [2024-05-01 12:00:00] iteration {step:8}/{300:8} | consumed samples: {128 * step:12} | "
                        f"lm loss: {value:.6E} | loss scale: 1.0 |\n" for step, value in losses.items())
    assert read_by_us(tool, log, "loss") == [(step, float(f"{value:.6E}")) for step, value in losses.items()]
    print(f"read {3 * len(losses)} events of the tensorboard package and {len(losses)} lines of a log")


def main():
    if len(sys.argv) > 2:
        os.makedirs(sys.argv[2], exist_ok=True)
        check(sys.argv[1], sys.argv[2])
        check_resume(sys.argv[1], sys.argv[2])
        check_reading(sys.argv[1], sys.argv[2])
    else:
        with tempfile.TemporaryDirectory() as folder:
            check(sys.argv[1], folder)
            check_resume(sys.argv[1], folder)
            check_reading(sys.argv[1], folder)


if __name__ == "__main__":
    main()
