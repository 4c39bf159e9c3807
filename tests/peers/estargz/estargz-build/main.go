// estargz-build LAYER-OR-TAR LAYER LEVEL writes an eStargz layer with the library of the stargz snapshotter, for the benches.
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/containerd/stargz-snapshotter/estargz"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "estargz-build:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 4 {
		return fmt.Errorf("usage: estargz-build LAYER-OR-TAR LAYER LEVEL")
	}
	source, err := os.Open(os.Args[1])
	if err != nil {
		return err
	}
	info, err := source.Stat()
	if err != nil {
		return err
	}
	level, err := strconv.Atoi(os.Args[3])
	if err != nil {
		return err
	}
	blob, err := estargz.Build(io.NewSectionReader(source, 0, info.Size()), estargz.WithCompressionLevel(level))
	if err != nil {
		return err
	}
	defer blob.Close()
	target, err := os.Create(os.Args[2])
	if err != nil {
		return err
	}
	if _, err := io.Copy(target, blob); err != nil {
		return err
	}
	return target.Close()
}
