"""From source to the stand-alone program for another machine: libraries, build, tests under QEMU, archive."""
