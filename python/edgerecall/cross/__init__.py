"""From a checkout to the stand-alone program for another machine: libraries, build, tests under QEMU, archive."""
