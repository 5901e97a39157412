"""Measuring on other machines, by ssh, adb or QEMU, with the stand-alone program."""
