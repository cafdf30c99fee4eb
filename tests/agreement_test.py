#!/usr/bin/env python3
"""Ranks that were started with different options, data, models or world sizes: all of them end soon, with exit code 2,
and one of them says what differs, on which ranks.

    agreement_test.py MOETRON
"""
import os
import shutil
import socket
import time

from process_support import MODEL, RUN, Ranks, check, failure_blocks, make_data, run, run_tests, wait_for_step

NEVER = 600  # seconds, of --comm-timeout, that nobody waits for
SOON = 120  # on a slow machine
COMMAND = ["pretrain", *MODEL, *RUN, "--train-iters", "8", "--eval-iters", "0", "--comm-timeout", str(NEVER)]


def check_refusal(name, words, more=None, variables=None, command=COMMAND, places=None):
    """Both ranks end with exit code 2, and one of them says all words."""
    with Ranks([*command, "--save", f"{name}_save"], name, 2, more, variables, places) as ranks:
        codes = ranks.codes(SOON)
        text = ranks.errors()
    blocks = failure_blocks(text)
    spoken = text.count("moetron: ")
    check(set(codes.values()) == {2} and spoken == 1, f"{name}: all end with 2, one speaks: {codes}")
    said = " ".join(text.split("moetron: ", 1)[-1].split()) if spoken else text
    check(all(word in said for word in words), f"    says: {said[:300]}")
    check("frame #" not in text and "terminate" not in text, "    without a stack trace")
    check(not os.path.exists(f"{name}_save/metrics.jsonl"), "    before the first step")
    return blocks


def test_options():
    both = "must be the same on all ranks: rank 0 has"
    blocks = check_refusal("seed", ["seed " + both, "1234, rank 1 has 5"], {1: ["--seed", "5"]})
    check(len(blocks) == 1, "    in a block")
    check_refusal("mesh", ["expert-model-parallel-size " + both, "1, rank 1 has 2"],
                  {1: ["--expert-model-parallel-size", "2"]})
    check_refusal("impossible", ["rank 1 cannot start", "tensor-model-parallel-size (3)",
                                 "tensor-model-parallel-size " + both, "1, rank 1 has 3"],
                  {1: ["--tensor-model-parallel-size", "3"]})
    check_refusal("unknown", ["rank 1 cannot start", "--sead"], {1: ["--sead", "5"]})
    check_refusal("first", ["--sead"], {0: ["--sead", "5"]})
    check_refusal("alike", ["--sead"], {0: ["--sead", "5"], 1: ["--sead", "5"]})


def test_world_sizes():
    # With three ranks the options would be wrong already, with four they would not.
    check_refusal("three", ["global-batch-size (8)", "the number of ranks must be the same on all ranks: rank 0 has 2, "
                            "rank 1 has 3"], variables={1: {"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3"}})
    check_refusal("four", ["world size must be the same on all ranks", "counts 4", "counts 2"],
                  variables={1: {"WORLD_SIZE": "4"}})


def test_files():
    shutil.copytree("data", "other")
    with open("other/pages_text_document.bin", "r+b") as file:
        file.seek(100)
        file.write(b"Q\0")
    check_refusal("content",
                  ["data-path (data/pages_text_document) must be the same on all ranks", "rank 1 has 120 doc"],
                  {1: ["--data-path", "other/pages_text_document"]})
    run([*COMMAND, "--save", "start"])
    shutil.copytree("start/step_0000008", "weights")
    shutil.copytree("start/step_0000008", "hosts/weights")
    with open("hosts/weights/manifest.json", "a") as file:
        file.write("\n")
    # Each host may have files of its own under the same path.
    loading = [*COMMAND, "--load", "weights", "--data-path", os.path.abspath("data/pages_text_document")]
    check_refusal("model", ["model (weights) must be the same on all ranks", "rank 1 has checkpoint"],
                  command=loading, places={1: "hosts"})


def test_silent_port():
    """A server that accepts and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        begin = time.monotonic()
        with Ranks([*COMMAND, "--comm-timeout", "3"], "silent", 2, variables={
                0: {"TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_PORT": port},
                1: {"TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_PORT": port}}) as ranks:
            codes = ranks.codes(SOON)
        text = ranks.errors()
        check(set(codes.values()) == {2} and port in text and "127.0.0.1" in text,
              f"a port that does not answer ends in {time.monotonic() - begin:.1f} s: {codes}, {text.strip()[-200:]}")


def test_variables():
    for name, value in (("LOCAL_WORLD_SIZE", "0"), ("WORLD_SIZE", "two"), ("LOCAL_RANK", "-1"),
                        ("OMP_NUM_THREADS", "0"), ("MASTER_PORT", "0"), ("WORLD_SIZE", "99999999999")):
        with Ranks(COMMAND, f"{name}_{value}", 1, variables={0: {"WORLD_SIZE": "2", name: value}}) as ranks:
            codes = ranks.codes(SOON)
        text = ranks.errors()
        check(codes == {0: 2} and name in text and value in text, f"{name}={value}: {codes}, {text.strip()[-160:]}")


def test_waiting_threads():
    """Threads that wait for each other sleep soon, for which the variable must be there before the program begins."""
    for given, expected in (({}, "GOMP_SPINCOUNT=4000"), ({"OMP_WAIT_POLICY": "active"}, "OMP_WAIT_POLICY=active")):
        name = "threads_" + expected.split("=")[0]
        more = ["--train-iters", "100000", "--save", name]
        with Ranks([*COMMAND, *more], f"{name}_log", 1, variables={0: {"OMP_NUM_THREADS": "2", **given}}) as ranks:
            wait_for_step(name, 1, ranks.processes[0])
            with open(f"/proc/{ranks.processes[0].pid}/environ") as file:
                variables = file.read().split("\0")
            check(expected in variables and sum(v.startswith(("GOMP_SPIN", "OMP_WAIT")) for v in variables) == 1,
                  f"the program runs with {expected}")
        check("2 compute threads a rank: OMP_NUM_THREADS" in ranks.errors(), "    and says how many threads it takes")


if __name__ == "__main__":
    run_tests(make_data, test_options, test_world_sizes, test_files, test_silent_port, test_variables,
              test_waiting_threads)
