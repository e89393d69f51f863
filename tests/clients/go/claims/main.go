// redis_rate as an application has it, through Sentinel where the binding names some. SCRIPTS is set if its user may
// run them. Prints one line for each claim that held; the first that does not ends it.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-redis/redis_rate/v10"

	"example.org/stock/binding"
)

func held(claim string) { fmt.Println(claim) }

func check(holds bool, facts ...any) {
	if !holds {
		log.Fatal(facts...)
	}
}

func refused(err error) bool {
	if err == nil {
		return false
	}
	for _, words := range []string{"NOPERM", "No permissions", "can't run this command", "ACL failure"} {
		if strings.Contains(err.Error(), words) {
			return true
		}
	}
	return false
}

func limit(ctx context.Context, limiter *redis_rate.Limiter, subject string) {
	three := redis_rate.PerHour(3)
	for call := range 4 {
		answer, err := limiter.Allow(ctx, subject+"ada", three)
		check(err == nil, err)
		check((answer.Allowed == 1) == (call < 3), call, answer)
		check(call < 3 || answer.RetryAfter > 19*time.Minute && answer.RetryAfter <= 20*time.Minute, answer)
	}
	held("three of four calls")
	var group sync.WaitGroup
	var admitted atomic.Int64
	for range 64 {
		group.Go(func() {
			answer, err := limiter.Allow(ctx, subject+"crowd", redis_rate.PerHour(10))
			check(err == nil, err)
			admitted.Add(int64(answer.Allowed))
		})
	}
	group.Wait()
	check(admitted.Load() == 10, admitted.Load())
	held("ten of 64 calls at once")
	check(limiter.Reset(ctx, subject+"ada") == nil)
	answer, err := limiter.Allow(ctx, subject+"ada", three)
	check(err == nil && answer.Allowed == 1, err, answer)
	held("reset")
}

func main() {
	client := binding.Connect(0)
	defer client.Close()
	ctx := context.Background()
	limiter := redis_rate.NewLimiter(client)
	// The library puts `rate:` before each key, so the policy's prefix begins with it.
	subject := strings.TrimPrefix(binding.Field("prefix"), "rate:") + os.Args[1] + "-"
	if os.Getenv("SCRIPTS") != "" {
		limit(ctx, limiter, subject)
	} else {
		_, err := limiter.Allow(ctx, subject+"ada", redis_rate.PerHour(3))
		check(refused(err), err)
		held("refused without scripts")
	}
	_, err := limiter.Allow(ctx, "other:ada", redis_rate.PerHour(3))
	check(refused(err), err)
	check(refused(client.Set(ctx, "other:key", "x", 0).Err()))
	held("refused outside of the prefix")
}
