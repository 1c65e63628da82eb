# SPDX-License-Identifier: MIT
"""Takes a port between the program's look at it and QEMU's own bind: exec'd in QEMU's place, it starts a process that
listens on 127.0.0.1:PORT, writes that one's PID to PID_FILE, and becomes QEMU. As `port_thief.py listen PORT` it is
that process.

    port_thief.py PORT PID_FILE QEMU ARGUMENT...
"""
import os
import socket
import subprocess
import sys
import time

if sys.argv[1] == "listen":
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(sys.argv[2])))
    listener.listen()
    print("ready", flush=True)
    time.sleep(300)
    sys.exit()

port, pid_file, qemu, *arguments = sys.argv[1:]
if "-uuid" in arguments:
    thief = subprocess.Popen([sys.executable, __file__, "listen", port], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    thief.stdout.readline()
    with open(pid_file, "w", encoding="ascii") as f:
        f.write(str(thief.pid))
os.execv(qemu, ["qemu-system-x86_64", *arguments])
