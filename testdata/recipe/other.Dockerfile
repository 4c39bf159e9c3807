# Shares both layers of pair.Dockerfile, the second of them at another height.
FROM scratch
COPY etc /etc
COPY other /other
COPY --chmod=755 app /app
CMD ["/app/app", "--other"]
