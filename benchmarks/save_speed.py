#!/usr/bin/env python3
"""What a save in the background costs, against the least that it could: the stall against one copy of the bytes in
memory, the write against dd with fsync into the same folder. In turns, since a disk that others use changes its mind.

    benchmarks/save_speed.py MOETRON FOLDER [ROUNDS]

FOLDER needs room for two checkpoints of 2.4 GB. Each line is of one round: ranks, seconds of the copy and of the stall,
GB/s of dd and of the write.
"""
import ctypes
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time

MOETRON, FOLDER = sys.argv[1:3]
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 3
MODEL = """--model-family llama --num-layers 8 --hidden-size 1024 --ffn-hidden-size 4096 --num-attention-heads 16
  --max-position-embeddings 128 --vocab-size 32000 --untie-embeddings-and-output-weights""".split()
TRAIN = """--mock-data --seq-length 16 --micro-batch-size 1 --global-batch-size 4 --train-iters 9 --save-interval 4
  --lr 1e-4 --eval-iters 0 --log-interval 1 --async-save --keep-last 1 --num-threads 1 --fp32""".split()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def save(ranks):
    """The second save of a run: the first makes the memory that it copies to."""
    folder = os.path.join(FOLDER, "run")
    shutil.rmtree(folder, ignore_errors=True)
    port = free_port()
    processes = []
    for rank in range(ranks):
        environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank),
                       "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [MOETRON, "pretrain", *MODEL, *TRAIN, "--save", folder,
                   "--pipeline-model-parallel-size", str(ranks)]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
    if any(process.wait() != 0 for process in processes):
        sys.exit("a run failed")
    with open(os.path.join(folder, "metrics.jsonl")) as lines:
        saves = [save for line in lines for save in json.loads(line).get("saves", [])]
    shutil.rmtree(folder)
    return next(save for save in saves if save["step"] == 8)


def copy(size):
    """Seconds of one copy between buffers that were written before."""
    source, target = ctypes.create_string_buffer(size), ctypes.create_string_buffer(size)
    ctypes.memset(source, 1, size)
    ctypes.memset(target, 2, size)
    begin = time.monotonic()
    ctypes.memmove(target, source, size)
    return time.monotonic() - begin


def copies(ranks, size):
    with multiprocessing.Pool(ranks) as pool:
        return max(pool.map(copy, [size // ranks] * ranks, chunksize=1))


def dd(ranks, size):
    """Bytes a second of as many at once."""
    names = [os.path.join(FOLDER, f"dd_{rank}") for rank in range(ranks)]
    count = max(1, size // ranks >> 24)
    begin = time.monotonic()
    writers = [subprocess.Popen(["dd", "if=/dev/zero", f"of={name}", "bs=16M", f"count={count}", "conv=fsync"],
                                stderr=subprocess.DEVNULL) for name in names]
    for writer in writers:
        writer.wait()
    seconds = time.monotonic() - begin
    for name in names:
        os.remove(name)
    return (count << 24) * ranks / seconds


print("ranks  copy, s  stall, s  times   dd, GB/s  write, GB/s  of dd")
for ranks in (1, 4):
    ratios = []
    for _ in range(ROUNDS):
        saved = save(ranks)
        speed = dd(ranks, saved["bytes"])
        seconds = copies(ranks, saved["bytes"])
        write = saved["bytes"] / saved["write_seconds"]
        ratios.append((saved["stall_seconds"] / seconds, write / speed))
        print(f"{ranks:5}  {seconds:7.2f}  {saved['stall_seconds']:8.2f}  {ratios[-1][0]:5.2f}   {speed / 1e9:8.2f}  "
              f"{write / 1e9:11.2f}  {ratios[-1][1]:5.2f}", flush=True)
    print(f"{ranks:5}  median times of the copy {statistics.median(r[0] for r in ratios):.2f}, "
          f"of dd {statistics.median(r[1] for r in ratios):.2f}", flush=True)
