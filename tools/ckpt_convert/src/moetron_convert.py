"""What the four programs of this folder share: they start moetron convert."""
import os
import sys

CHECKOUT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))


def run(*options):
    """Becomes `moetron convert` with the options, and behind them what the program was given."""
    find = os.path.join(CHECKOUT, "scripts", "find_moetron.sh")
    script = 'source "$1"; program=$(find_moetron "$2") || exit 2; shift 2; exec "$program" convert "$@"'
    os.execvp("bash", ["bash", "-c", script, os.path.basename(sys.argv[0]), find, CHECKOUT, *options, *sys.argv[1:]])
