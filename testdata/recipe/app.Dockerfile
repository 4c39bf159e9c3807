FROM scratch
ARG TARGETARCH
ARG TARGETVARIANT
LABEL org.opencontainers.image.title="acme app" com.acme.tier="back end"
ENV PATH=/app:/bin LANG=C.UTF-8
COPY etc /etc
COPY --chmod=755 --chown=1000:1000 app /app
COPY platform/$TARGETARCH$TARGETVARIANT /platform
WORKDIR /app
USER 1000:1000
EXPOSE 8080/tcp
VOLUME /data
STOPSIGNAL SIGINT
HEALTHCHECK --interval=30s --timeout=3s CMD ["/app/app", "--health"]
ENTRYPOINT ["/app/app"]
CMD ["--listen", ":8080"]
