"""`python -m spokes.admin`: the admin process, as `spokes server` starts it; `--help` lists its arguments."""

from spokes.admin.process import main

main()
