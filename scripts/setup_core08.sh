#!/bin/bash
# Puts Megatron-core 0.8, of which the guide's files of Qwen2 and Llama are, into .venv-core08, for
# tests/oracles/megatron_core08_oracle.py: a folder that Python looks into before .venv, where the core of today is.
# scripts/setup.sh runs it; it does nothing when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.8.0
[ ! -d ".venv-core08/megatron_core-$version.dist-info" ] || exit 0
rm -rf .venv-core08
.venv/bin/pip install -q --no-deps --target .venv-core08 "megatron-core==$version"
