#!/usr/bin/env python3
"""Lets a model answer a few questions, greedily: a short look at whether its weights, its tokenizer and its template
are sound. The exit code is 0 where every answer has words, 1 where one is empty or a single sign over and over, and
that of `moetron generate` where it fails.

    simple_test.py [--load-path DIR] [--prompt TEXT] [options of moetron generate]

DIR is any Hugging Face directory; without it, qwen3_30b_a3b_hf_release under QWEN3_SFT_WORKSPACE.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

QUESTIONS = ["你好，请介绍一下你自己。", "Give me a short introduction to large language models.", "3 加 5 等于几？"]
CHECKOUT = pathlib.Path(os.path.abspath(__file__)).parents[2]


def find_moetron():
    found = subprocess.run(["bash", "-c", 'source "$1/scripts/find_moetron.sh" && find_moetron "$2"', "simple_test.py",
                            str(CHECKOUT), os.environ.get("PROJECT_PATH", str(CHECKOUT))],
                           stdout=subprocess.PIPE, text=True)
    if found.returncode != 0:
        sys.exit(found.returncode)
    return found.stdout.strip()


def is_sound(answer):
    """Not empty, and not one sign over and over, as weights that are not finite or not the model's give it."""
    signs = "".join(answer.split())
    return len(signs) > 0 and not (len(signs) >= 8 and len(set(signs)) == 1)


def answers_in(text, questions):
    """What `moetron generate --messages` prints is "> question", and the answer below it."""
    answers = []
    for question, following in zip(questions, [*questions[1:], None]):
        _, mark, text = text.partition(f"> {question}\n")
        if not mark:
            sys.exit(f"simple_test.py: moetron generate gave no answer to {question!r}")
        answers.append(text if following is None else text[:text.find(f"\n> {following}\n")])
    return answers


def main():
    workspace = os.environ.get("QWEN3_SFT_WORKSPACE") or "/mnt/public/example_qwen3_sft"
    parser = argparse.ArgumentParser(usage=__doc__.strip().rsplit("\n\n", 2)[1].strip(), allow_abbrev=False)
    parser.add_argument("--load-path", default=f"{workspace}/qwen3_30b_a3b_hf_release")
    parser.add_argument("--prompt")
    given, others = parser.parse_known_args()
    if not os.path.isdir(given.load_path):
        print(f"simple_test.py: load-path: there is no folder {given.load_path}", file=sys.stderr)
        sys.exit(3)
    questions = [given.prompt] if given.prompt else QUESTIONS
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        for question in questions:
            file.write(json.dumps({"messages": [{"role": "user", "content": question}]}, ensure_ascii=False) + "\n")
        file.flush()
        done = subprocess.run([find_moetron(), "generate", "--load", given.load_path, "--messages", file.name, "--greedy",
                               "--max-new-tokens", "64", *others], stdout=subprocess.PIPE)
    text = done.stdout.decode("utf-8", "replace")
    sys.stdout.buffer.write(done.stdout)  # whatever the locale
    sys.stdout.flush()
    if done.returncode != 0:
        sys.exit(done.returncode if done.returncode > 0 else 1)
    for question, answer in zip(questions, answers_in(text, questions)):
        if not is_sound(answer):
            print(f"simple_test.py: the answer to {question!r} is {answer.strip()[:20]!r}: the weights, or the tokenizer, "
                  f"of {given.load_path} are not sound", file=sys.stderr)
            sys.exit(1)


if __name__ == "__main__":
    main()
