"""One harness that measures this project and its peers in turn, in the same run. See README.md."""
