#!/usr/bin/env python3
"""A middle file as a Hugging Face model: it is one.

    convert_middle_file_to_hf.py --load-path DIR --save-path DIR [options of moetron convert]
"""
from moetron_convert import run

if __name__ == "__main__":
    run("--from", "hf", "--to", "hf")
