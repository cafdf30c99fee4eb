#!/usr/bin/env python3
"""moetron launch: the bits of torchrun's ranks, deaths, restarts, signals, a terminal, two nodes; and the environments
of Slurm and MPI, which pretrain finds by itself.

    launch_test.py MOETRON
"""
import filecmp
import os
import pty
import re
import select
import signal
import socket
import subprocess
import time

from process_support import (ENVIRONMENT, HANG, MODEL, MOETRON, RUN, TORCHRUN, check, children_of, code_within,
                             failure_blocks, free_port, make_data, records, run, run_tests, wait_for_step)

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MARGIN = 120  # seconds, for the end of a run on a slow machine
LAUNCH = [MOETRON, "launch", "-n", "4"]
LAYOUT = """--tensor-model-parallel-size 2 --expert-model-parallel-size 2 --moe-token-dispatcher-type alltoall
  --use-distributed-optimizer""".split()
TRAIN = ["pretrain", *MODEL, *RUN, *LAYOUT, "--train-iters", "40", "--save-interval", "5"]
ENDLESS = ["pretrain", *MODEL, *RUN, *LAYOUT, "--train-iters", "100000", "--eval-iters", "0"]


def start(command, log):
    with open(log, "w") as out:
        return subprocess.Popen(command, env=ENVIRONMENT, stdout=out, stderr=subprocess.STDOUT)


def text_of(log):
    with open(log) as file:
        return file.read()


def running_ranks(launcher):
    ranks = children_of(launcher.pid)
    check(sorted(ranks) == [0, 1, 2, 3], f"four ranks run: {ranks}")
    return ranks


def check_gone(ranks):
    check(not any(os.path.exists(f"/proc/{pid}") for pid in ranks.values()), "    no rank is left behind")


def check_same_run(folder, step=40):
    """Against the run of torchrun."""
    check([r["loss"] for r in records(folder)] == [r["loss"] for r in records("torchrun")],
          f"{folder}: losses bit-equal to torchrun's")
    for file in ("model.safetensors", "state/optimizer.safetensors"):
        check(filecmp.cmp(f"{folder}/step_00000{step}/{file}", f"torchrun/step_00000{step}/{file}", shallow=False),
              f"    {file} has the same bytes")


def test_same_bits():
    run([*TRAIN, "--save", "torchrun"], launcher=TORCHRUN)
    done = run(["launch", "-n", "4", "--log-dir", "logs", *TRAIN, "--save", "launched"])
    check_same_run("launched")
    check("4 ranks by moetron launch (RANK), 4 here" in done.stderr, "    says who started the ranks")
    check(sorted(os.listdir("logs")) == ["rank_1.log", "rank_2.log", "rank_3.log"], "    a log of each rank but 0")


def test_rank_killed():
    for victim in (2, 0):
        folder = f"killed_{victim}"
        launcher = start([*LAUNCH, "--log-dir", "logs", *ENDLESS, "--save", folder, "--save-interval", "2"],
                         f"{folder}.log")
        wait_for_step(folder, 5, launcher)
        ranks = running_ranks(launcher)
        os.kill(ranks[victim], signal.SIGKILL)
        code = code_within(launcher, MARGIN)
        check(code == 137, f"rank {victim} killed: exit code 137 ({code})")
        check_gone(ranks)
        text = text_of(f"{folder}.log")
        blocks = failure_blocks(text)
        check(len(blocks) == 1 and blocks[0]["rank"] == f"{victim} of 4, killed by SIGKILL", f"    one block: {blocks}")
        check(f"rank {victim}" in blocks[0]["cause"] and blocks[0]["phase"].startswith("step "), "    what the others saw")
        check("continues from the newest checkpoint" in blocks[0]["next"], "    and how to go on")
        last = text.rstrip().splitlines()[-1]
        check(last == "  log     logs/rank_2.log" if victim == 2 else last.startswith("  next "), "    as the last words")


def test_restarts():
    launcher = start([*LAUNCH, "--max-restarts", "2", *TRAIN, "--save", "restarted"], "restarted.log")
    for victim, step in ((1, 11), (0, 27)):
        wait_for_step("restarted", step, launcher)
        os.kill(running_ranks(launcher)[victim], signal.SIGKILL)
    code = code_within(launcher, HANG)
    text = text_of("restarted.log")
    check(code == 0, f"two faults and --max-restarts 2: exit code 0 ({code})" + ("" if code == 0 else text[-3000:]))
    check(re.findall(r"^moetron: rank (\d of 4 failed .*)$", text, re.M) ==
          ["1 of 4 failed (killed by SIGKILL): restart 1 of 2", "0 of 4 failed (killed by SIGKILL): restart 2 of 2"],
          "    a line for each restart")
    check_same_run("restarted")


def test_codes():
    """What a restart cannot mend is not restarted, and said in one sentence, at once where the options tell."""
    cases = (
        (["-n", "4", "pretrain", *MODEL, *RUN, "--global-batch-size", "6"], 2, ["global-batch-size", "6"]),
        (["-n", "4", "pretrain", *MODEL, *RUN, "--globl-batch-size", "6"], 2, ["unknown option --globl-batch-size"]),
        (["-n", "4", "pretrain", *MODEL, *RUN, "--load", "text"], 3, ["load", "text"]),
        (["-n", "2", "pretrain", *MODEL, *RUN, "--clip-grad", "0", "--lr", "1e38"], 93, ["not finite"]),
        (["-n", "0", "pretrain"], 2, ["nproc-per-node", "0"]),
        (["-n", "two", "pretrain"], 2, ["nproc-per-node", "two"]),
        (["-n"], 2, ["nproc-per-node"]),
        (["-n", "4"], 2, ["launch needs the command"]),
        (["--processes", "4", "pretrain"], 2, ["unknown option --processes"]),
        (["--lr", "4", "pretrain"], 2, ["--lr belongs to"]),
        (["-x", "pretrain"], 2, ["-x"]),
        (["plot", "run"], 2, ["launch starts ranks of pretrain", "plot"]),
        (["launch", "pretrain"], 2, ["launch starts ranks of pretrain"]),
        (["pretrian"], 2, ["pretrain"]),
        (["--nnodes", "2", "pretrain", *MODEL, *RUN], 2, ["nnodes (2)", "--node-rank", "--master-addr"]),
        (["--node-rank", "1", "pretrain", *MODEL, *RUN], 2, ["node-rank (1)", "nnodes (1)"]),
        (["--master-port", "70000", "pretrain"], 2, ["master-port", "70000"]),
        (["--log-dir", "/proc/x", "pretrain", *MODEL, *RUN], 3, ["/proc/x"]),
    )
    for arguments, code, names in cases:
        done = run(["launch", "--max-restarts", "3", *arguments], code=code)
        last = done.stderr.rstrip().splitlines()[-4:]
        said = [line for line in done.stderr.splitlines() if line.startswith("moetron: ")]
        check(len(said) == 1 and all(name in " ".join(last) for name in names), f"    says: {said} {last}")
    check("--max-restarts" in run(["launch", "--help"]).stdout, "    its help")
    check("--train-iters" in run(["launch", "-n", "4", "pretrain", "--help"]).stdout, "    that of the command")


def test_terminal():
    """Under a terminal rank 0 draws its bar; Ctrl-C leaves no process and one sentence."""
    launcher, terminal = pty.fork()
    if launcher == 0:
        os.execve(MOETRON, [*LAUNCH, *ENDLESS, "--save", "seen"], ENVIRONMENT)
    shown, ranks = "", {}
    interrupted = None
    deadline = time.monotonic() + HANG
    while time.monotonic() < deadline:
        try:
            if select.select([terminal], [], [], 1)[0]:
                shown += os.read(terminal, 65536).decode(errors="replace")
        except OSError:
            break  # all that had the terminal open have ended
        if interrupted is None and " left" in shown:
            ranks = children_of(launcher)
            os.write(terminal, b"\x03")
            interrupted = time.monotonic()
    _, status = os.waitpid(launcher, 0)
    code = os.waitstatus_to_exitcode(status)
    check("of 100000" in shown and "\r" in shown, "a bar on the terminal")
    check(code == 130, f"Ctrl-C: exit code 130 ({code}) after {time.monotonic() - (interrupted or 0):.1f} s")
    check(sorted(ranks) == [0, 1, 2, 3], f"    of four ranks: {ranks}")
    check_gone(ranks)
    last = shown.rstrip().splitlines()[-1].replace("\x1b[K", "")
    check(last.startswith("moetron: ended by SIGINT; "), f"    says so: {last}")


def test_stop():
    """SIGTERM and SIGUSR1 are the ranks' own: they save, and 75 stays 75."""
    for name in ("SIGTERM", "SIGUSR1"):
        launcher = start([*LAUNCH, "--max-restarts", "3", *TRAIN, "--save", name], f"{name}.log")
        wait_for_step(name, 7, launcher)
        launcher.send_signal(getattr(signal, name))
        code = code_within(launcher, MARGIN)
        check(code == 75, f"{name}: exit code 75 ({code})")
        check("moetron: " not in text_of(f"{name}.log"), "    no failure is told")
        run(["launch", "-n", "4", *TRAIN, "--save", name])
        check_same_run(name)


def test_launcher_killed():
    launcher = start([*LAUNCH, *ENDLESS, "--save", "orphans"], "orphans.log")
    wait_for_step("orphans", 3, launcher)
    ranks = running_ranks(launcher)
    launcher.kill()
    launcher.wait()
    deadline = time.monotonic() + MARGIN
    while any(os.path.exists(f"/proc/{pid}") for pid in ranks.values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    check_gone(ranks)


def start_nodes(name, port, *more):
    return [start([MOETRON, "launch", "-n", "2", "--nnodes", "2", "--node-rank", str(node), "--master-addr",
                   "127.0.0.1", "--master-port", str(port), *more, *TRAIN, "--save", name], f"{name}_{node}.log")
            for node in range(2)]


def test_two_nodes():
    nodes = start_nodes("nodes", free_port())
    codes = [code_within(node, HANG) for node in nodes]
    check(codes == [0, 0], f"two launches on one machine are two nodes: {codes}")
    check_same_run("nodes")

    nodes = start_nodes("restarted_nodes", free_port(), "--max-restarts", "1")
    wait_for_step("restarted_nodes", 11, nodes[0])
    ranks = children_of(nodes[1].pid)
    check(sorted(ranks) == [2, 3], f"ranks of the second: {ranks}")
    os.kill(ranks[3], signal.SIGKILL)
    codes = [code_within(node, HANG) for node in nodes]
    check(codes == [0, 0], f"a death on one node restarts both: {codes}" +
          "".join(text_of(f"restarted_nodes_{node}.log")[-2000:] for node in range(2) if codes[node] != 0))
    check_same_run("restarted_nodes")


def slurm_job():
    """A number of which pretrain makes a port that is free."""
    for job in range(31, 10000, 97):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 20000 + job)) != 0:
                return job
    raise RuntimeError("no port is free")


# What srun does with its arguments, on one machine: options of its own, then the program.
FAKE_SRUN = """#!/bin/bash
while [ "${1:0:2}" = -- ]; do shift; done
for rank in 0 1 2 3; do
  SLURM_PROCID=$rank SLURM_NTASKS=4 SLURM_LOCALID=$rank SLURM_STEP_ID=0 SLURM_NODEID=0 SLURM_STEP_NODELIST=localhost \\
    SLURM_STEP_TASKS_PER_NODE=4 "$@" &
done
code=0
for job in $(jobs -p); do wait "$job" || code=$?; done
exit "$code"
"""


def test_slurm():
    """The scripts of examples/slurm, with an srun that starts four ranks; a job that was asked to stop is queued again."""
    os.makedirs("slurm_bin")
    for name, text in (("srun", FAKE_SRUN), ("scontrol", "#!/bin/bash\necho scontrol $*\n")):
        with open(f"slurm_bin/{name}", "w") as file:
            file.write(text)
        os.chmod(f"slurm_bin/{name}", 0o755)
    # As in a batch script, of which none of the variables may be taken for a rank's.
    variables = {"PATH": os.path.abspath("slurm_bin") + os.pathsep + os.environ["PATH"], "MOETRON": MOETRON,
                 "SLURM_JOB_ID": str(slurm_job()), "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}
    for name in ("one_node", "several_nodes"):
        def job():
            with open(f"{name}.log", "w") as log:
                return subprocess.Popen([os.path.join(ROOT, "examples", "slurm", f"{name}.sh"), *TRAIN[1:]],
                                        env={**ENVIRONMENT, **variables, "SAVE": name}, stdout=log, stderr=log)
        if name == "one_node":
            first = job()
            wait_for_step(name, 7, first)
            open(f"{name}/stop", "w").close()
            code = code_within(first, MARGIN)
            check(code == 75 and "scontrol requeue" in text_of(f"{name}.log"), f"stopped and queued again: {code}")
        code = code_within(job(), HANG)
        text = text_of(f"{name}.log")
        said = re.findall(r"4 ranks by .*", text)
        check(len(said) == 1 and said[0].startswith("4 ranks by Slurm (SLURM_PROCID), 4 here; they meet at localhost:"),
              f"{name}.sh: ranks as by srun: {said}")
        check(code == 0, f"    exit code {code}" + ("" if code == 0 else text[-2000:]))
        check_same_run(name)
    done = subprocess.run([MOETRON, *TRAIN, "--save", "batch"], capture_output=True, text=True,
                          env={**ENVIRONMENT, **variables}, timeout=HANG)
    check(done.returncode == 2 and "srun starts one for each task" in done.stderr, "in a batch script, pretrain without srun is one rank")


def test_mpi():
    """What mpirun gives each rank: nothing else is needed on one machine."""
    kinds = {
        "Open MPI": lambda rank: {"OMPI_COMM_WORLD_RANK": rank, "OMPI_COMM_WORLD_SIZE": 4,
                                  "OMPI_COMM_WORLD_LOCAL_RANK": rank, "OMPI_COMM_WORLD_LOCAL_SIZE": 4},
        "MPI": lambda rank: {"PMI_RANK": rank, "PMI_SIZE": 4, "MPI_LOCALRANKID": rank, "MPI_LOCALNRANKS": 4},
    }
    for name, variables in kinds.items():
        folder = name.replace(" ", "_")
        ranks = []
        for rank in range(4):
            given = {key: str(value) for key, value in variables(rank).items()}
            with open(f"{folder}_{rank}.log", "w") as log:
                ranks.append(subprocess.Popen([MOETRON, *TRAIN, "--save", folder], env={**ENVIRONMENT, **given},
                                              stdout=log, stderr=log))
        codes = [code_within(rank, HANG) for rank in ranks]
        check(codes == [0] * 4, f"four ranks as by {name}: {codes}")
        said = re.findall(r"4 ranks by .*", text_of(f"{folder}_0.log"))
        check(len(said) == 1 and said[0].startswith(f"4 ranks by {name} ("), f"    in one line: {said}")
        check_same_run(folder)


if __name__ == "__main__":
    run_tests(make_data, test_same_bits, test_rank_killed, test_restarts, test_codes, test_terminal, test_stop,
              test_launcher_killed, test_two_nodes, test_slurm, test_mpi)
