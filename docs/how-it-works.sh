#!/bin/sh
# Draws docs/how-it-works.svg: `make picture`. Two programs, and what is between them, in the four phases of a connection.
set -eu

box() { # CLASS X Y WIDTH HEIGHT
    echo "<rect class=\"$1\" x=\"$2\" y=\"$3\" width=\"$4\" height=\"$5\" rx=\"6\"/>"
}

text() { # CLASS X Y TEXT
    echo "<text class=\"$1\" x=\"$2\" y=\"$3\">$4</text>"
}

arrow() { # CLASS X1 X2 Y
    echo "<line class=\"$1\" x1=\"$2\" y1=\"$4\" x2=\"$3\" y2=\"$4\" marker-end=\"url(#head)\"/>"
}

phase() { # Y HEIGHT NAME: a row, with a box for each program
    box row 10 "$1" 880 "$2"
    text phase 24 $(($1 + 24)) "$3"
    box program 130 $(($1 + 14)) 200 $(($2 - 28))
    box program 680 $(($1 + 14)) 200 $(($2 - 28))
}

cat <<'SVG'
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 640" role="img" aria-labelledby="title what">
<title id="title">The life of a connection between two programs on one machine</title>
<desc id="what">In four phases, create, connect, transfer and disconnect: what each program calls, and what lies between them. Only the
bytes of the third phase leave the kernel, for two rings in shared memory.</desc>
<style>
text { font: 14px sans-serif; fill: #1f2328 }
.code { font-family: monospace }
.phase, .heading { font-weight: bold }
.middle { text-anchor: middle }
.page { fill: #ffffff }
.row { fill: #f3f5f7 }
.program { fill: #ffffff; stroke: #59636e }
.kernel { fill: #dde3ea; stroke: #59636e }
.memory { fill: #cfe8d3; stroke: #1a7f37 }
.later { fill: none; stroke: #59636e; stroke-dasharray: 5 4 }
line { stroke: #1f2328; stroke-width: 1.5 }
.bytes { stroke: #1a7f37; stroke-width: 4 }
#head path { fill: #1f2328 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.page { fill: #0d1117 }
.row { fill: #161b22 }
.program { fill: #0d1117; stroke: #9198a1 }
.kernel { fill: #2d333b; stroke: #9198a1 }
.memory { fill: #12361f; stroke: #3fb950 }
.later { stroke: #9198a1 }
line { stroke: #e6edf3 }
#head path { fill: #e6edf3 }
.bytes { stroke: #3fb950 }
}
</style>
<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="9" markerHeight="9" markerUnits="userSpaceOnUse" orient="auto-start-reverse"><path d="M0 0 10 5 0 10z"/></marker></defs>
SVG

box page 0 0 900 640
text "heading middle" 230 30 "program A, the client"
text "heading middle" 505 30 "between them"
text "heading middle" 780 30 "program B, the server"

phase 44 110 create
text code 142 84 "socket()"
text "" 142 106 "gives descriptor 5"
text code 692 76 "socket()"
text "" 692 94 "gives descriptor 3"
text code 692 112 "bind(127.0.0.1, 7000)"
text code 692 130 "listen(3)"
box kernel 370 58 270 82
text middle 505 94 "two sockets in the kernel,"
text middle 505 114 "not connected yet"

phase 162 110 connect
text code 142 202 "connect(5,"
text code 158 222 "127.0.0.1, 7000)"
text "" 142 246 "a machine and a port"
text code 692 212 "accept(3)"
text "" 692 234 "gives descriptor 4"
arrow "" 330 366 217
box kernel 370 176 270 82
text middle 505 212 "the kernel connects the sockets:"
text middle 505 232 "one TCP connection"
arrow "" 640 676 217

phase 280 216 transfer
text code 142 330 "write(5, ...)"
text code 142 352 "read(5, ...)"
text "" 142 390 "The calls are the same"
text "" 142 408 "on every path."
text code 692 330 "read(4, ...)"
text code 692 352 "write(4, ...)"
box memory 370 294 270 62
text "heading middle" 505 318 "pipe"
text middle 505 340 "two rings in shared memory"
arrow bytes 330 366 318
arrow bytes 640 676 318
arrow bytes 366 334 340
arrow bytes 676 644 340
box kernel 370 364 270 62
text "heading middle" 505 388 "host"
text middle 505 410 "the kernel's TCP, and the doorbell"
arrow "" 330 366 388
arrow "" 640 676 388
arrow "" 366 334 408
arrow "" 676 644 408
box later 370 434 270 48
text "heading middle" 505 454 "stack"
text middle 505 472 "TCP/IP of its own: not in use yet"

phase 504 110 disconnect
text code 142 554 "close(5)"
text "" 142 576 "ends this side"
arrow "" 330 366 559
box kernel 370 518 270 82
text middle 505 548 "the kernel tells the other end;"
text middle 505 568 "the rings are read to the end first,"
text middle 505 588 "then the memory is given back"
arrow "" 640 676 559
text code 692 554 "read(4, ...)"
text "" 692 576 "gives 0: the end"
text middle 450 632 "Only the bytes of the third phase leave the kernel. The rest of the connection never does."
echo "</svg>"
