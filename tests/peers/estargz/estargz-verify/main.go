// estargz-verify LAYER TOC-DIGEST reads an eStargz layer with the library of the stargz snapshotter, verifies the table of
// contents and every chunk, and prints a line of JSON for each path.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"sort"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/opencontainers/go-digest"
)

type line struct {
	Path   string            `json:"path"`
	Type   string            `json:"type"`
	Mode   int64             `json:"mode"`
	UID    int               `json:"uid"`
	GID    int               `json:"gid"`
	Size   int64             `json:"size"`
	Link   string            `json:"link"`
	MTime  int64             `json:"mtime"`
	Major  int               `json:"major"`
	Minor  int               `json:"minor"`
	Links  int               `json:"links"`
	Xattrs map[string][]byte `json:"xattrs"`
	SHA256 string            `json:"sha256"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "estargz-verify:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 3 {
		return fmt.Errorf("usage: estargz-verify LAYER TOC-DIGEST")
	}
	file, err := os.Open(os.Args[1])
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	reader, err := estargz.Open(io.NewSectionReader(file, 0, info.Size()))
	if err != nil {
		return err
	}
	verifier, err := reader.VerifyTOC(digest.Digest(os.Args[2]))
	if err != nil {
		return err
	}
	root, ok := reader.Lookup("")
	if !ok {
		return fmt.Errorf("the layer has no root")
	}
	out := json.NewEncoder(os.Stdout)
	return walk(reader, verifier, out, "", root)
}

func walk(reader *estargz.Reader, verifier estargz.TOCEntryVerifier, out *json.Encoder, name string, entry *estargz.TOCEntry) error {
	found := line{
		Path: name, Type: entry.Type, Mode: entry.Mode, UID: entry.UID, GID: entry.GID, Size: entry.Size,
		Link: entry.LinkName, MTime: entry.ModTime().Unix(), Major: entry.DevMajor, Minor: entry.DevMinor,
		Links: entry.NumLink, Xattrs: entry.Xattrs,
	}
	if entry.ModTime().IsZero() {
		found.MTime = 0
	}
	if entry.Type == "reg" {
		sum, err := content(reader, verifier, entry)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		found.SHA256 = sum
	}
	if err := out.Encode(found); err != nil {
		return err
	}
	children := map[string]*estargz.TOCEntry{}
	entry.ForeachChild(func(base string, child *estargz.TOCEntry) bool {
		children[base] = child
		return true
	})
	bases := make([]string, 0, len(children))
	for base := range children {
		bases = append(bases, base)
	}
	sort.Strings(bases)
	for _, base := range bases {
		if err := walk(reader, verifier, out, path.Join(name, base), children[base]); err != nil {
			return err
		}
	}
	return nil
}

// content reads a file chunk by chunk, verifies each chunk and the whole.
func content(reader *estargz.Reader, verifier estargz.TOCEntryVerifier, entry *estargz.TOCEntry) (string, error) {
	whole := sha256.New()
	if entry.Size > 0 {
		file, err := reader.OpenFile(entry.Name)
		if err != nil {
			return "", err
		}
		for offset := int64(0); offset < entry.Size; {
			chunk, ok := reader.ChunkEntryForOffset(entry.Name, offset)
			if !ok {
				return "", fmt.Errorf("no chunk at %d", offset)
			}
			size := chunk.ChunkSize
			if size == 0 {
				size = entry.Size - offset
			}
			check, err := verifier.Verifier(chunk)
			if err != nil {
				return "", err
			}
			if _, err := io.Copy(io.MultiWriter(whole, check), io.NewSectionReader(file, offset, size)); err != nil {
				return "", err
			}
			if !check.Verified() {
				return "", fmt.Errorf("the chunk at %d has another digest", offset)
			}
			offset += size
		}
	}
	sum := hex.EncodeToString(whole.Sum(nil))
	if entry.Digest != "sha256:"+sum {
		return "", fmt.Errorf("digest %s listed, %s found", entry.Digest, sum)
	}
	return sum, nil
}
