FROM scratch
COPY etc /etc
COPY --chmod=755 app /app
CMD ["/app/app"]
