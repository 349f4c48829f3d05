import sys

from stargan.commands import main

sys.exit(main(program="python -m stargan"))
