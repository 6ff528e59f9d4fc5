# The ComfyUI versions that the tests run against; the newest is also what commands use where COMFYUI_PATH names none.
# shellcheck shell=bash disable=SC2034  # bin/setup and bin/test read this file
OLDEST=0.3.75
MIDDLE=0.18.2
NEWEST=0.30.0
