// Calls per second of redis_rate, of the function that does the same, or of INCR. Arguments: binding, way, connections, calls.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/go-redis/redis_rate/v10"

	"example.org/stock/binding"
)

func number(text string) int {
	value, err := strconv.Atoi(text)
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	way, connections, calls := os.Args[2], number(os.Args[3]), number(os.Args[4])
	client := binding.Connect(connections)
	defer client.Close()
	ctx := context.Background()
	limiter, limit := redis_rate.NewLimiter(client), redis_rate.PerHour(10_000)
	call := map[string]func(subject int) error{
		"incr": func(subject int) error { return client.Incr(ctx, fmt.Sprintf("rate:i:%d", subject)).Err() },
		"redis_rate": func(subject int) error {
			_, err := limiter.Allow(ctx, fmt.Sprintf("go:%d", subject), limit)
			return err
		},
		"redoubt-g": func(subject int) error {
			return client.FCall(ctx, "redoubt_limit", []string{fmt.Sprintf("rate:g:{%d}", subject)}).Err()
		},
	}[way]
	if err := call(0); err != nil {
		log.Fatal(err)
	}
	began := time.Now()
	var group sync.WaitGroup
	for caller := range connections {
		group.Go(func() {
			for at := caller; at < calls; at += connections {
				if err := call(at * 7 % 5_000); err != nil {
					log.Fatal(err)
				}
			}
		})
	}
	group.Wait()
	fmt.Printf("%.0f\n", float64(calls)/time.Since(began).Seconds())
}
