// storage-pull HOST:PORT/REPOSITORY:TAG DIRECTORY pulls an image from a registry without TLS into a new containers-storage
// below DIRECTORY, with partial pulls, and prints a line of JSON for each layer. A layer that was pulled as zstd:chunked
// has a tocDigest. Needs root.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/signature"
	istorage "go.podman.io/image/v5/storage"
	"go.podman.io/image/v5/types"
	"go.podman.io/storage"
	"go.podman.io/storage/pkg/reexec"
)

type line struct {
	ID        string `json:"id"`
	Parent    string `json:"parent"`
	TOCDigest string `json:"tocDigest"`
	Path      string `json:"path"`
}

func main() {
	if reexec.Init() {
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "storage-pull:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 3 {
		return fmt.Errorf("usage: storage-pull HOST:PORT/REPOSITORY:TAG DIRECTORY")
	}
	root := os.Args[2]
	store, err := storage.GetStore(storage.StoreOptions{
		RunRoot:         filepath.Join(root, "run"),
		GraphRoot:       filepath.Join(root, "graph"),
		GraphDriverName: "overlay",
		PullOptions: map[string]string{
			"enable_partial_images": "true",
			"convert_images":        "false",
		},
	})
	if err != nil {
		return err
	}
	defer store.Shutdown(true)
	source, err := docker.ParseReference("//" + os.Args[1])
	if err != nil {
		return err
	}
	target, err := istorage.Transport.ParseStoreReference(store, "localhost/pulled:latest")
	if err != nil {
		return err
	}
	policy, err := signature.NewPolicyContext(&signature.Policy{
		Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()},
	})
	if err != nil {
		return err
	}
	_, err = copy.Image(context.Background(), policy, target, source, &copy.Options{
		ReportWriter:   os.Stderr,
		SourceCtx:      &types.SystemContext{DockerInsecureSkipTLSVerify: types.OptionalBoolTrue},
		DestinationCtx: &types.SystemContext{},
	})
	if err != nil {
		return err
	}
	layers, err := store.Layers()
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for _, layer := range layers {
		path := filepath.Join(root, "graph", "overlay", layer.ID, "diff")
		found := line{ID: layer.ID, Parent: layer.Parent, TOCDigest: string(layer.TOCDigest), Path: path}
		if err := out.Encode(found); err != nil {
			return err
		}
	}
	return nil
}
