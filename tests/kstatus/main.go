// Kstatus says what kstatus, by which Flux and others wait, makes of objects: one JSON object a line in, one word a line out.
package main

import (
	"bufio"
	"fmt"
	"log"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(lines.Bytes()); err != nil {
			log.Fatalf("read an object: %v", err)
		}
		result, err := status.Compute(object)
		if err != nil {
			log.Fatalf("compute the status of %s: %v", object.GetName(), err)
		}
		fmt.Println(result.Status)
	}
	if err := lines.Err(); err != nil {
		log.Fatalf("read: %v", err)
	}
}
