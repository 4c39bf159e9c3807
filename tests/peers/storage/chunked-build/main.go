// chunked-build TAR LAYER LEVEL writes a zstd:chunked layer with the library of containers/storage, for the benches.
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"go.podman.io/storage/pkg/chunked/compressor"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "chunked-build:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 4 {
		return fmt.Errorf("usage: chunked-build TAR LAYER LEVEL")
	}
	source, err := os.Open(os.Args[1])
	if err != nil {
		return err
	}
	target, err := os.Create(os.Args[2])
	if err != nil {
		return err
	}
	level, err := strconv.Atoi(os.Args[3])
	if err != nil {
		return err
	}
	writer, err := compressor.ZstdCompressor(target, map[string]string{}, &level)
	if err != nil {
		return err
	}
	if _, err := io.Copy(writer, source); err != nil {
		return err
	}
	if err := writer.Close(); err != nil {
		return err
	}
	return target.Close()
}
