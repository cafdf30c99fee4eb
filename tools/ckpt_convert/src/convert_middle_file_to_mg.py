#!/usr/bin/env python3
"""A middle file as Megatron's files of ranks.

    convert_middle_file_to_mg.py --load-path DIR --save-path DIR
        [--tp-size N] [--tpe-size N] [--ep-size N] [--pp-size N] [...]
"""
from moetron_convert import run

if __name__ == "__main__":
    run("--from", "hf", "--to", "megatron")
