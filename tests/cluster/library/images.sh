# Images: made without Docker from Debian packages or from one static binary, kept as docker archives, imported on every node.
# shellcheck shell=bash disable=SC2154

archive_of() { local name=${1##*/}; echo "$images/${name/:/-}.tar"; } # NAME

load() { # FILE...
  local file i job jobs=()
  for i in $(nodes); do
    (for file in "$@"; do containers_of "$i" images import "$file" > /dev/null || exit 1; done) &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job" || fail "an image could not be imported"; done
}

images() { # builds what is not there yet, or was made another way; what is unpacked and what is compiled side by side
  local engines
  engine_images &
  engines=$!
  build
  wait "$engines" || exit 1
  binary_image localhost/not-redis:1 pause "$bin/pause" "$(archive_of localhost/not-redis:1)"
}

engine_images() {
  engine_image localhost/redis:7.0 bookworm redis-server
  engine_image localhost/redis:8.0 trixie redis-server
  engine_image localhost/valkey:8.1 trixie valkey-server
}

engine_image() { # NAME SUITE PACKAGE...
  local name=$1 archive recipe
  archive=$(archive_of "$name")
  recipe=$( (echo "$*"; cat "$here/engine-image" "$here/docker-archive") | sha256sum)
  [ ! -e "$archive" ] || [ "$recipe" != "$(cat "$archive.recipe" 2> /dev/null)" ] || return 0
  say "building $name"
  mkdir -p "$images"
  shift
  "$here/engine-image" "$name" "$archive" "$@" || fail "could not build $name"
  echo "$recipe" > "$archive.recipe"
}

binary_image() { # NAME ENTRYPOINT BINARY ARCHIVE: an image that holds one static binary and nothing else
  local work
  work=$(mktemp -d)
  mkdir -p "$work/root" "$(dirname "$4")"
  install -s -m 0755 "$3" "$work/root/$2"
  tar -C "$work/root" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --format=gnu -cf "$work/layer.tar" "$2"
  "$here/docker-archive" "$1" "$work/layer.tar" "{\"User\": \"65532:65532\", \"Entrypoint\": [\"/$2\"]}" "$4"
  rm -rf "$work"
}

is_static() { # BINARY: no interpreter among its program headers
  python3 - "$1" <<'PYTHON'
import struct, sys
with open(sys.argv[1], "rb") as file:
    data = file.read()
if data[:5] != b"\x7fELF\x02":
    sys.exit(1)
offset, = struct.unpack_from("<Q", data, 32)
size, count = struct.unpack_from("<HH", data, 54)
sys.exit(any(struct.unpack_from("<I", data, offset + size * i)[0] == 3 for i in range(count)))
PYTHON
}

image() { # NAME BINARY
  local archive
  [ $# = 2 ] || fail "usage: image NAME BINARY"
  is_static "$2" || fail "$2 is not a static 64-bit ELF binary: nothing but it would be in the image, so it could not start"
  archive=$(mktemp --suffix=.tar)
  binary_image "$1" redoubt "$2" "$archive"
  load "$archive"
  rm -f "$archive"
}
