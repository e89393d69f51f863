# The operator, and the agent that pods copy out of it: one static binary in an otherwise empty image.
#   docker buildx build --platform linux/amd64,linux/arm64 -t redoubt .

# The compiler runs on the machine that builds, whatever the image is for: emulated, it would take an hour.
FROM --platform=$BUILDPLATFORM rust:1.95-bookworm AS build
ARG TARGETARCH
WORKDIR /build

# Linker and static C library of the other architecture; those of its own are in the base image.
RUN case "$(dpkg --print-architecture)" in \
      amd64) other="gcc-aarch64-linux-gnu libc6-dev-arm64-cross" ;; \
      arm64) other="gcc-x86-64-linux-gnu libc6-dev-amd64-cross" ;; \
      *) echo "cannot build on $(dpkg --print-architecture)" >&2; exit 1 ;; \
    esac \
 && apt-get update \
 && apt-get install -y --no-install-recommends $other \
 && rm -rf /var/lib/apt/lists/* \
 && rustup target add x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu

ENV CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=x86_64-linux-gnu-gcc \
    CC_x86_64_unknown_linux_gnu=x86_64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc \
    RUSTFLAGS="-C target-feature=+crt-static"

COPY Cargo.toml Cargo.lock ./
COPY src ./src
# An architecture that is not listed is an error, not an image of another one.
RUN case "$TARGETARCH" in \
      amd64) target=x86_64-unknown-linux-gnu ;; \
      arm64) target=aarch64-unknown-linux-gnu ;; \
      *) echo "no target for architecture '$TARGETARCH'" >&2; exit 1 ;; \
    esac \
 && cargo build --locked --release --bin redoubt --target "$target" \
 && install -D -m 0755 "target/$target/release/redoubt" /image/redoubt

FROM scratch
COPY --from=build /image/redoubt /redoubt
# A number that no user has; pods that copy the agent run it as the engine's user instead.
USER 65532:65532
ENTRYPOINT ["/redoubt"]
CMD ["operator"]
