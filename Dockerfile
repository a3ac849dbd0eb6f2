# One image with all programs; docker-compose.yml says which one runs. Builds with the classic builder, no buildx needed.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# Without default features the simulator needs no container engine to compile against.
RUN cargo build --release --locked --package producer --package worker --package tests --bin producer --bin worker --bin imgur-sim --no-default-features

FROM debian:bookworm-slim
# HTTPS needs the certificates of the public authorities.
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends ca-certificates >/dev/null \
 && rm -rf /var/lib/apt/lists/*
# A new volume takes over the owner of the folder that it covers: the workers' own.
RUN useradd --system --uid 10001 --no-create-home imgq && install -d -o imgq /images
COPY --from=build /src/target/release/producer /src/target/release/worker /src/target/release/imgur-sim /usr/local/bin/
USER imgq
ENV IMGQ_STORAGE=/images
VOLUME /images
CMD ["worker"]
