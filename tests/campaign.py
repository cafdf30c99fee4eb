#!/usr/bin/env python3
"""Looks for what nobody thought of: damaged files of every kind, runs that are killed or stopped, calls of the system
that fail (tests/fail_calls.cpp), options that change on a resume, odd paths, each drawn with a seed. Finds nothing, or
prints how to see it again.

    campaign.py MOETRON [--faults FAIL_CALLS_LIBRARY] [--minutes 120] [--seed N] [--trial SEED/NUMBER] [--jobs 2]

What may never happen: an end by a signal that we did not send, a hang, an internal error or a stack trace, a refusal
without a sentence, a reported step that is lost, losses that are not those of an undisturbed run, files of others that
are gone. tests/CMakeLists.txt runs half a minute of it on every push."""

import argparse
import collections
import concurrent.futures
import errno
import json
import os
import random
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from process_support import ENVIRONMENT, HANG, MODEL, MOETRON, first_step, make_data, make_text, saved_steps

STEPS = 12
RUN = f"""--seq-length 32 --micro-batch-size 2 --global-batch-size 4 --lr 2e-3 --lr-decay-style constant --eval-iters 0
  --split 95,5,0 --log-interval 1 --save-interval 2 --fp32 --num-threads 1 --train-iters {STEPS}""".split()
MEMORY = 16 << 30  # bytes of addresses: what asks for more is told so
KNOWN_CODES = {0, 2, 3, 75, 93}
NEVER_SAID = (
    "internal error",
    "terminate called",
    "frame #",
    "Traceback",
    "enforce fail",
    "c10::",
    "std::",
    "runtime error:",
)
Finding = collections.namedtuple("Finding", "trial what words")


def limit():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def moetron(words, folder, environment=None, timeout=HANG):
    """The end of a run, as a CompletedProcess with text; code "hang" where it does not end."""
    try:
        return subprocess.run(
            [MOETRON, *words],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env={**ENVIRONMENT, **(environment or {})},
            preexec_fn=limit,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as late:
        return subprocess.CompletedProcess(words, "hang", "", (late.stderr or b"").decode(errors="replace"))


def complaint(done, codes=frozenset(KNOWN_CODES)):
    """What is wrong with how a run ended; None if nothing is."""
    said = done.stdout + done.stderr
    if done.returncode == "hang":
        return f"does not end within {HANG} s"
    if done.returncode not in codes:
        return f"ends with {done.returncode}: {said[-400:]}"
    for word in NEVER_SAID:
        if word in said:
            return f'says "{word}": {said[max(0, said.index(word) - 200):][:400]}'
    last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
    if done.returncode in (2, 3) and not re.search(r"^moetron: .{8}", done.stderr, re.M):
        return f"is refused without a sentence: {last}"
    return None


class Ground:
    """What every trial starts from: made once, copied by whoever changes it."""

    def __init__(self, folder, faults):
        os.chdir(folder)
        self.faults = faults  # a library; None: no calls fail
        self.folder = folder
        os.makedirs("data")
        make_text()
        make_data()
        self.train = ["pretrain", *MODEL, *RUN, "--data-path", f"{folder}/data/pages_text_document"]
        done = moetron(
            [*self.train, "--save", "run", "--tensorboard-dir", "events", "--data-cache-path", "cache"], folder
        )
        if complaint(done, {0}):
            sys.exit(f"the ground does not stand: {done.stderr}")
        self.steps = sorted(name for name in os.listdir("run") if name.startswith("step_"))
        self.model = f"run/{self.steps[-1]}"
        self.losses = losses("run")
        self.make_tokenizer()
        self.make_tables()

    def make_tokenizer(self):
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        with open("text/pages.jsonl") as lines:
            pages = [json.loads(line)["text"] for line in lines]
        tokenizer.train_from_iterator(
            pages,
            trainers.BpeTrainer(
                vocab_size=400,
                show_progress=False,
                special_tokens=["<|endoftext|>"],
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            ),
        )
        os.makedirs("tokenizer")
        tokenizer.save("tokenizer/tokenizer.json")
        with open("tokenizer/tokenizer_config.json", "w") as out:
            json.dump({"eos_token": "<|endoftext|>", "added_tokens_decoder": {}}, out)

    def make_tables(self):
        with open("curve.csv", "w") as out:
            out.write("step,loss\n" + "".join(f"{i},{5 / i}\n" for i in range(1, 9)))
        with open("golden.json", "w") as out:
            json.dump(
                {
                    "lm loss": {
                        "start_step": 1,
                        "end_step": 8,
                        "step_interval": 1,
                        "values": {str(i): 5 / i for i in range(1, 9)},
                    }
                },
                out,
            )
        with open("run.toml", "w") as out:
            out.write(
                "[training]\nseq-length = 32\nmicro-batch-size = 2\nglobal-batch-size = 4\ntrain-iters = 1\n"
                "[optimizer]\nlr = 1e-3\n[data]\nsplit = [95, 5, 0]\n"
            )


def losses(folder):
    """{step: loss} of a run's metrics; what a kill cut short is left out, as a reader does."""
    found = {}
    if not os.path.exists(f"{folder}/metrics.jsonl"):
        return found
    for line in open(f"{folder}/metrics.jsonl", errors="replace"):
        if line.endswith("\n"):
            record = json.loads(line)
            found[record["step"]] = record["loss"]
    return found


# Damage.

ODD_VALUES = [
    None,
    True,
    False,
    -1,
    0,
    1,
    2,
    3,
    7,
    64,
    10**9,
    2**31,
    2**63,
    -(2**63),
    10**30,
    0.5,
    -0.5,
    1e-300,
    1e308,
    "",
    "x",
    "\u0000",
    "é" * 50,
    "a" * 100000,
    [],
    [None],
    [[]],
    {},
    {"type": "yarn"},
    {"a": {"b": [1]}},
]


def places_of(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in list(items)[:400]:
        yield from places_of(child, (*path, key))


def change_json(text, rng):
    root = {"root": json.loads(text)}
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        path = rng.choice(list(places_of(root["root"])))
        holder = root
        for key in ("root", *path)[:-1]:
            holder = holder[key]
        key = ("root", *path)[-1]
        kind = rng.randrange(4)
        if kind == 0 and isinstance(holder, dict) and path:
            del holder[key]
        elif kind == 1 and isinstance(holder[key], (int, float)):
            holder[key] = holder[key] * rng.choice((-1, 0, 2, 3, 1000, 0.5, 10**6))
        else:
            holder[key] = rng.choice(ODD_VALUES)
    return json.dumps(root["root"])


def change_bytes(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at = rng.randrange(len(data) + 1)
        length = rng.choice((1, 1, 2, 8, 100, 5000))
        kind = rng.randrange(5)
        if kind == 0:
            data[at : at + length] = rng.randbytes(min(length, len(data) - at))
        elif kind == 1:
            del data[at : at + length]
        elif kind == 2:
            data[at:at] = rng.choice(
                (b"\0", b"\xff" * 8, b"{", b'"', b"\n", b"[" * 1000, b"9" * 30, b"\xef\xbb\xbf", b"\r")
            )
        elif kind == 3:
            data[at:at] = data[at : at + length]
        else:
            data = data[:at]
    return bytes(data)


def damage(path, rng):
    """Changes a file; what was done, in words."""
    kind = rng.randrange(12)
    if kind == 0:
        open(path, "w").close()
        return "emptied"
    if kind == 1:
        os.remove(path)
        return "removed"
    if kind == 2:
        os.remove(path)
        rng.choice((os.mkdir, os.mkfifo, lambda p: os.symlink(os.path.basename(p), p)))(path)
        return "replaced by what is no file"
    with open(path, "rb") as file:
        data = file.read()
    if path.endswith(".json") and kind < 9:
        with open(path, "w") as out:
            out.write(change_json(data, rng))
        return "changed in its values"
    with open(path, "wb") as out:
        out.write(change_bytes(data, rng))
    return "changed in its bytes"


def damaged_file(ground, folder, rng):
    """Of a model, a checkpoint, data, text, options or curves: read or refused."""

    def copied(name):
        source = os.path.join(ground.folder, name)
        copy = shutil.copytree if os.path.isdir(source) else shutil.copy
        copy(source, os.path.join(folder, os.path.basename(name)))

    def any_file(name):
        files = [os.path.join(place, file) for place, _, files in os.walk(os.path.join(folder, name)) for file in files]
        return rng.choice(sorted(files))

    fresh = ["--train-iters", "1", "--save", "new"]
    kind = rng.randrange(8)
    if kind == 0:
        copied(ground.model)
        model = os.path.basename(ground.model)
        target = any_file(model)
        words = rng.choice(
            (
                ["generate", "--load", model, "--tokenizer", "bytes", "--prompt", "a", "--max-new-tokens", "3"],
                [
                    "pretrain",
                    "--load",
                    model,
                    *RUN,
                    "--tokenizer",
                    "bytes",
                    "--data-path",
                    f"{ground.folder}/data/pages_text_document",
                    *fresh,
                ],
            )
        )
    elif kind == 1:
        copied("run")
        target = any_file("run")
        words = [*ground.train, "--save", "run", "--train-iters", str(STEPS + 1)]
    elif kind == 2:
        copied("data")
        target = any_file("data")
        words = ["pretrain", *MODEL, *RUN, "--data-path", "data/pages_text_document", *fresh]
    elif kind == 3:
        copied("cache")
        target = any_file("cache")
        words = [*ground.train, "--data-cache-path", "cache", "--save", "new"]
    elif kind == 4:
        copied("tokenizer")
        target = any_file("tokenizer")
        words = [
            "preprocess",
            "--input",
            f"{ground.folder}/text",
            "--tokenizer-model",
            "tokenizer",
            "--output-prefix",
            "out",
        ]
    elif kind == 5:
        copied("text")
        target = any_file("text")
        words = [
            "preprocess",
            "--input",
            rng.choice(("text", target)),
            "--tokenizer",
            "bytes",
            "--output-prefix",
            "out",
        ]
    elif kind == 6:
        copied("run.toml")
        target = f"{folder}/run.toml"
        words = [
            "pretrain",
            "--config",
            "run.toml",
            *MODEL,
            "--data-path",
            f"{ground.folder}/data/pages_text_document",
            *fresh,
        ]
    else:
        name = rng.choice(("curve.csv", "golden.json", "run/metrics.jsonl", "events"))
        copied(name)
        base = os.path.basename(name)
        target = any_file(base) if os.path.isdir(f"{folder}/{base}") else f"{folder}/{base}"
        words = ["compare-loss", base, f"{ground.folder}/curve.csv"]
    done_to_it = damage(target, rng)
    done = moetron(words, folder)
    codes = KNOWN_CODES | ({1} if words[0] == "compare-loss" and "past the tolerance" in done.stdout else set())
    wrong = complaint(done, codes)
    if wrong is None and kind == 1 and done.returncode == 0:
        wrong = wrong_losses(ground, f"{folder}/run", until=STEPS)
    return wrong and (f"{os.path.relpath(target, folder)} {done_to_it}: {wrong}", words)


def wrong_losses(ground, folder, until):
    """Losses that are not those of the undisturbed run."""
    for step, loss in losses(folder).items():
        if step <= until and loss != ground.losses[step]:
            return f"step {step} has the loss {loss}, the undisturbed run's is {ground.losses[step]}"
    return None


def killed_run(ground, folder, rng):
    """Killed or stopped at any time, again and again: it goes on behind what it said was saved, to the same losses."""
    words = [*ground.train, "--save", "run"]
    newest = 0
    for _ in range(rng.randrange(1, 4)):
        with open(f"{folder}/out", "w") as out, open(f"{folder}/err", "w") as err:
            process = subprocess.Popen([MOETRON, *words], cwd=folder, stdout=out, stderr=err, env=ENVIRONMENT)
            time.sleep(rng.uniform(0.1, 4))
            process.send_signal(rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1)))
            try:
                code = process.wait(HANG)
            except subprocess.TimeoutExpired:
                process.kill()
                return "a stopped run does not end", words
        said, told = open(f"{folder}/out").read(), open(f"{folder}/err").read()
        if code not in (0, 75, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGUSR1):
            return f"ends with {code}: {told[-400:]}", words
        if newest and first_step(said) == 0:
            return f"begins anew, though step {newest} was saved: {told[-400:]}", words
        newest = max([newest, *saved_steps(said)])
    done = moetron(words, folder)
    wrong = complaint(done, {0})
    if wrong is None:
        began = first_step(done.stdout)
        if began is not None and began < newest:
            wrong = f"goes on at step {began}, though step {newest} was saved"
    if wrong is None and list(losses(f"{folder}/run")) != list(range(1, STEPS + 1)):
        wrong = f"the metrics hold the steps {list(losses(f'{folder}/run'))}"
    if wrong is None:
        wrong = wrong_losses(ground, f"{folder}/run", until=STEPS)
    return wrong and (wrong, words)


def failing_calls(ground, folder, rng):
    """A disk that fails at some call, then a sound one: nothing that was reported saved is lost."""
    if rng.random() < 0.5:
        shutil.copytree(f"{ground.folder}/run", f"{folder}/run")
        for step in ground.steps[rng.randrange(1, len(ground.steps)) :]:
            shutil.rmtree(f"{folder}/run/{step}")
    newest = max(
        [0, *(int(name[5:]) for name in os.listdir(f"{folder}/run") if name.startswith("step_"))]
        if os.path.isdir(f"{folder}/run")
        else [0]
    )
    words = [*ground.train, "--save", "run"]
    fault = {
        "FAIL_BELOW": f"{folder}/run",
        "FAIL_CALL": rng.choice(("open", "read", "write", "fsync", "rename", "mkdir", "unlink", "opendir")),
        "FAIL_NUMBER": str(rng.choice((rng.randrange(1, 12), rng.randrange(1, 400)))),
        "FAIL_TIMES": rng.choice(("1", "2", "1000000")),
        "FAIL_ERRNO": str(rng.choice((errno.EIO, errno.ENOSPC))),
    }
    done = moetron(words, folder, {**fault, "LD_PRELOAD": ground.faults})
    what = " ".join(f"{name}={value}" for name, value in fault.items() if name != "FAIL_BELOW")
    # One that cannot say what it saved has not.
    wrong = complaint(done, KNOWN_CODES)
    newest = max([newest, *saved_steps(done.stdout)])
    if wrong is None:
        done = moetron(words, folder)
        wrong = complaint(done, {0})
    if wrong is None:
        began = first_step(done.stdout)
        if began is None or began < newest:
            wrong = f"goes on at step {began}, though step {newest} was saved"
        wrong = wrong or wrong_losses(ground, f"{folder}/run", until=STEPS)
    return wrong and (f"{what}: {wrong}", words)


# Changed on a resume: what may differ without a word, and what must be accepted first.
FREE = [["--log-interval", "2"], ["--save-interval", "3"], ["--exit-interval", "5"], ["--comm-timeout", "60"]]
MEANT = [
    ["--seed", "5"],
    ["--seq-length", "16"],
    ["--lr", "1e-3"],
    ["--global-batch-size", "8"],
    ["--weight-decay", "0.3"],
    ["--adam-beta2", "0.9"],
    ["--split", "90,10,0"],
    ["--lr-decay-style", "cosine"],
    ["--clip-grad", "0.5"],
    ["--bf16"],
]
OTHER_MODEL = [
    ["--num-layers", "4"],
    ["--hidden-size", "64"],
    ["--num-experts", "16"],
    ["--moe-router-topk", "1"],
    ["--q-lora-rank", "8"],
]


def changed_resume(ground, folder, rng):
    shutil.copytree(f"{ground.folder}/run", f"{folder}/run")
    for step in ground.steps[rng.randrange(1, len(ground.steps)) :]:
        shutil.rmtree(f"{folder}/run/{step}")
    kept = open(f"{folder}/run/metrics.jsonl").read()
    changes = rng.choice((FREE, MEANT, OTHER_MODEL))
    change = rng.choice(changes)
    words = [*ground.train, "--save", "run", *change]
    done = moetron(words, folder)
    if changes is FREE:
        wrong = complaint(done, {0}) or wrong_losses(ground, f"{folder}/run", until=STEPS)
    else:
        wrong = complaint(done, {2})
        if wrong is None and change[0][2:] not in done.stdout + done.stderr and change != ["--bf16"]:
            wrong = f"is refused without naming {change[0]}: {done.stderr[-400:]}"
        if wrong is None and open(f"{folder}/run/metrics.jsonl").read() != kept:
            wrong = "a refused resume changed the metrics"
        if wrong is None and changes is MEANT:
            wrong = complaint(moetron([*words, "--accept-changes"], folder), {0})
    return wrong and (f"{' '.join(change)} on a resume: {wrong}", words)


def odd_path(folder, rng):
    """A path that is no usual file or folder, or is named oddly."""
    name = rng.choice(("a b", "ü", "x\ny", "'q'", "-x", "%s%n", "a" * 200, "$HOME", "\\", "*"))
    path = os.path.join(folder, name)
    kind = rng.randrange(9)
    if kind == 0:
        return path
    if kind == 1:
        os.mkdir(path)
    elif kind == 2:
        open(path, "w").close()
    elif kind == 3:
        os.mkfifo(path)
    elif kind == 4:
        os.symlink(name, path)
    elif kind == 5:
        os.symlink("/nowhere", path)
    elif kind == 6:
        return os.path.join(path, "b" * 300)
    elif kind == 7:
        return rng.choice(("/dev/full", "/dev/null", "/proc/self/mem", "/proc", "/"))
    else:
        os.mkdir(path)
        path = os.path.join(path, "..", name)
    return path


def odd_paths(ground, folder, rng):
    path = odd_path(folder, rng)
    data = f"{ground.folder}/data/pages_text_document"
    fresh = ["pretrain", *MODEL, *RUN, "--train-iters", "2"]
    choices = [
        [*fresh, "--data-path", data, "--save", path],
        [*fresh, "--data-path", path, "--save", "new"],
        [*fresh, "--data-path", data, "--save", "new", "--data-cache-path", path],
        [*fresh, "--data-path", data, "--save", "new", "--tensorboard-dir", path],
        [*fresh, "--data-path", data, "--save", "new", "--config", path],
        ["pretrain", *RUN, "--data-path", data, "--load", path],
        ["generate", "--load", path, "--prompt", "a"],
        [
            "generate",
            "--load",
            f"{ground.folder}/{ground.model}",
            "--tokenizer",
            "bytes",
            "--prompt-file",
            path,
            "--max-new-tokens",
            "2",
        ],
        ["preprocess", "--input", path, "--tokenizer", "bytes", "--output-prefix", "out"],
        ["preprocess", "--input", f"{ground.folder}/text", "--tokenizer", "bytes", "--output-prefix", path],
        ["preprocess", "--input", f"{ground.folder}/text", "--tokenizer-model", path, "--output-prefix", "out"],
        ["plot", f"{ground.folder}/curve.csv", "--picture", path + ".svg"],
        ["plot", path],
        ["compare-loss", path, f"{ground.folder}/curve.csv"],
        [
            "simulate",
            "--cost",
            "unit",
            "--num-micro-batches",
            "8",
            "--pipeline-model-parallel-size",
            "2",
            "--draw",
            path + ".svg",
        ],
    ]
    words = rng.choice(choices)
    wrong = complaint(moetron(words, folder))
    return wrong and (wrong, words)


SCENARIOS = [(damaged_file, 6), (killed_run, 2), (failing_calls, 3), (changed_resume, 1), (odd_paths, 3)]


def trial(ground, name):
    """One situation, all of which follows from its name."""
    rng = random.Random(name)
    scenarios = [(s, weight) for s, weight in SCENARIOS if ground.faults or s is not failing_calls]
    scenario = rng.choices([s for s, _ in scenarios], [weight for _, weight in scenarios])[0]
    with tempfile.TemporaryDirectory() as folder:
        found = scenario(ground, folder, rng)
    return scenario.__name__, found and Finding(name, *found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("moetron")
    parser.add_argument("--faults", type=os.path.abspath)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--trial", help="one trial of a campaign once more")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    asked = parser.parse_args()
    print(f"campaign: seed {asked.seed}, {asked.minutes:g} minutes, {asked.jobs} at a time", flush=True)
    counts, findings = collections.Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(folder, asked.faults)
        if asked.trial:
            print(trial(ground, asked.trial))
            return 0
        end = time.monotonic() + 60 * asked.minutes
        numbers = iter(range(10**9))
        with concurrent.futures.ThreadPoolExecutor(asked.jobs) as pool:
            running = set()
            while time.monotonic() < end or running:
                while len(running) < asked.jobs and time.monotonic() < end:
                    running.add(pool.submit(trial, ground, f"{asked.seed}/{next(numbers)}"))
                done, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                for result in done:
                    scenario, finding = result.result()
                    counts[scenario] += 1
                    if finding:
                        findings.append(finding)
                        print(
                            f"FOUND {finding.trial} ({scenario}): {finding.what}\n      moetron {shlex.join(finding.words)}",
                            flush=True,
                        )
    print(
        "campaign: "
        + ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        + f"; {len(findings)} found"
    )
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
