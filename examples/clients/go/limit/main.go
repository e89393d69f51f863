// Limits how often a subject may do something, with the binding of a RateLimitPolicy.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log"
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

type denial struct {
	until   time.Time
	headers map[string]string
}

// Limiter decides by the policy of a binding.
type Limiter struct {
	client               *redis.Client
	prefix, onStoreError string
	quotas               string
	denied               sync.Map
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
	client := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: field("master-name"), SentinelAddrs: strings.Split(field("sentinels"), ","),
		SentinelUsername: field("sentinel-username"), SentinelPassword: field("sentinel-password"),
		Username: field("username"), Password: field("password"), MaxRetries: -1, ContextTimeoutEnabled: true,
	})
	return &Limiter{client: client, prefix: field("prefix"), onStoreError: field("on-store-error"), quotas: strings.Join(quotas, ", ")}
}

// Limit says whether a request is allowed, and the headers of its response (draft-ietf-httpapi-ratelimit-headers-10).
func (limiter *Limiter) Limit(ctx context.Context, subject string, cost int64) (bool, map[string]string) {
	if known, found := limiter.denied.Load(subject); found && time.Now().Before(known.(denial).until) {
		return false, known.(denial).headers
	}
	// A layer that is slow is one that fails: after this time `on-store-error` decides.
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	reply, err := limiter.client.FCall(ctx, "redoubt_limit", []string{limiter.prefix + "{" + subject + "}"}, cost).Slice()
	if err != nil {
		return limiter.onStoreError == "Allow", nil
	}
	allowed, left, reset, retry := reply[0].(int64), reply[2].(int64), reply[3].(int64), reply[4].(int64)
	headers := map[string]string{
		"RateLimit-Policy": limiter.quotas,
		"RateLimit":        fmt.Sprintf("%q;r=%d;t=%d", reply[5], left, (reset+999)/1000),
	}
	if allowed == 0 && retry > 0 {
		headers["Retry-After"] = fmt.Sprint(max(1, (retry+999)/1000))
		limiter.denied.Store(subject, denial{time.Now().Add(time.Duration(retry) * time.Millisecond), headers})
	}
	return allowed != 0, headers
}

func main() {
	if seconds, err := strconv.ParseFloat(os.Getenv("LIMIT_DEADLINE"), 64); err == nil {
		deadline = time.Duration(seconds * float64(time.Second))
	}
	limiter := NewLimiter()
	defer limiter.client.Close()
	ctx := context.Background()
	limiter.client.Ping(ctx) // the first call would also find the primary
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		allowed, headers := limiter.Limit(ctx, lines.Text(), 1)
		answer := map[string]any{"allowed": allowed}
		for name, value := range headers {
			answer[name] = value
		}
		text, _ := json.Marshal(answer) // texts and a bool
		fmt.Println(string(text))
	}
}
