// Limits how often a subject may do something, with the binding of a RateLimitPolicy.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

func field(name string) string {
	text, err := os.ReadFile(filepath.Join(os.Getenv("SERVICE_BINDING_ROOT"), "limits", name))
	if err != nil {
		log.Fatal(err)
	}
	return string(text)
}

var deadline = 50 * time.Millisecond

// Denials that are remembered at most: beyond them all are forgotten, and the layer is asked again.
const remembered = 1000

type denial struct {
	cost  int64
	told  time.Time
	wait  time.Duration
	reply []any
}

// Limiter decides by the policy of a binding.
type Limiter struct {
	client               *redis.Client
	prefix, onStoreError string
	quotas               string
	shards               int
	mutex                sync.Mutex
	denied               map[string]denial // by key
}

// NewLimiter reads the binding.
func NewLimiter() *Limiter {
	var limits []struct {
		Name               string
		Quota              int64
		WindowMilliseconds int64
	}
	if err := json.Unmarshal([]byte(field("limits")), &limits); err != nil {
		log.Fatal(err)
	}
	var quotas []string
	for _, it := range limits {
		quota := fmt.Sprintf("%q;q=%d", it.Name, it.Quota)
		if it.WindowMilliseconds%1000 == 0 { // w is in whole seconds, and may be left out
			quota += fmt.Sprintf(";w=%d", it.WindowMilliseconds/1000)
		}
		quotas = append(quotas, quota)
	}
	shards, err := strconv.Atoi(field("shards"))
	if err != nil {
		log.Fatal(err)
	}
	client := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: field("master-name"), SentinelAddrs: strings.Split(field("sentinels"), ","),
		SentinelUsername: field("sentinel-username"), SentinelPassword: field("sentinel-password"),
		Username: field("username"), Password: field("password"), MaxRetries: -1, ContextTimeoutEnabled: true,
	})
	return &Limiter{
		client: client, prefix: field("prefix"), onStoreError: field("on-store-error"), quotas: strings.Join(quotas, ", "),
		shards: shards, denied: map[string]denial{},
	}
}

// Headers of a response, by a reply of this age (draft-ietf-httpapi-ratelimit-headers-10).
func (limiter *Limiter) headers(reply []any, age time.Duration) map[string]string {
	seconds := func(milliseconds any) int64 {
		left := time.Duration(milliseconds.(int64))*time.Millisecond - age
		return int64((left + time.Second - 1) / time.Second)
	}
	headers := map[string]string{
		"RateLimit-Policy": limiter.quotas,
		"RateLimit":        fmt.Sprintf("%q;r=%d;t=%d", reply[5], reply[2].(int64)*int64(limiter.shards), seconds(reply[3])),
	}
	if reply[0].(int64) == 0 && reply[4].(int64) > 0 { // -1: the cost is above what ever fits
		headers["Retry-After"] = fmt.Sprint(seconds(reply[4]))
	}
	return headers
}

// Limit says whether a request is allowed, and the headers of its response.
func (limiter *Limiter) Limit(ctx context.Context, subject string, cost int64) (bool, map[string]string) {
	if limiter.shards > 1 {
		subject = fmt.Sprintf("%s:%d", subject, rand.IntN(limiter.shards))
	}
	key := limiter.prefix + "{" + subject + "}"
	limiter.mutex.Lock()
	known := limiter.denied[key]
	limiter.mutex.Unlock()
	if age := time.Since(known.told); cost >= known.cost && age < known.wait {
		return false, limiter.headers(known.reply, age)
	}
	// A layer that is slow is one that fails: after this time `on-store-error` decides.
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	reply, err := limiter.client.FCall(ctx, "redoubt_limit", []string{key}, cost).Slice()
	if err != nil {
		return limiter.onStoreError == "Allow", nil
	}
	if wait := time.Duration(reply[4].(int64)) * time.Millisecond; reply[0].(int64) == 0 && wait > 0 {
		limiter.remember(key, denial{cost, time.Now(), wait, reply})
	}
	return reply[0].(int64) != 0, limiter.headers(reply, 0)
}

func (limiter *Limiter) remember(key string, told denial) {
	limiter.mutex.Lock()
	defer limiter.mutex.Unlock()
	if len(limiter.denied) >= remembered {
		clear(limiter.denied)
	}
	limiter.denied[key] = told
}

func main() {
	if seconds, err := strconv.ParseFloat(os.Getenv("LIMIT_DEADLINE"), 64); err == nil {
		deadline = time.Duration(seconds * float64(time.Second))
	}
	limiter := NewLimiter()
	defer limiter.client.Close()
	ctx := context.Background()
	limiter.client.Ping(ctx) // the first call would also find the primary
	// A line is COST SUBJECT.
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		cost, subject, _ := strings.Cut(lines.Text(), " ")
		units, err := strconv.ParseInt(cost, 10, 64)
		if err != nil {
			log.Fatal(err)
		}
		allowed, headers := limiter.Limit(ctx, subject, units)
		answer := map[string]any{"allowed": allowed}
		for name, value := range headers {
			answer[name] = value
		}
		text, _ := json.Marshal(answer) // texts and a bool
		fmt.Println(string(text))
	}
}
