// Reads through a cache, with the binding of a CacheNamespace.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

func field(name string) string {
	text, err := os.ReadFile(filepath.Join(os.Getenv("SERVICE_BINDING_ROOT"), "cache", name))
	if err != nil {
		log.Fatal(err)
	}
	return string(text)
}

const (
	patience = 5 * time.Second  // to wait for what another caller computes
	copied   = 10 * time.Second // for which a copy in this process is used at most
)

var (
	prefix = field("prefix")
	client = redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: field("master-name"), SentinelAddrs: strings.Split(field("sentinels"), ","),
		SentinelUsername: field("sentinel-username"), SentinelPassword: field("sentinel-password"),
		Username: field("username"), Password: field("password"),
		DialTimeout: 500 * time.Millisecond, ReadTimeout: time.Second, WriteTimeout: time.Second, MaxRetries: -1,
	})
	errSourceDown = errors.New("the source is down")
)

// Compute gives a value; nil: there is none.
type Compute func(context.Context) (*string, error)

// Cached is the value of a key; computed by this caller if it is the one that is told to.
func Cached(ctx context.Context, key string, compute Compute, ttl string, tags ...string) (*string, error) {
	keys, deadline := []string{key}, time.Now().Add(patience)
	for {
		reply, err := client.FCall(ctx, "redoubt_cache_get", keys).Slice()
		if err != nil {
			return compute(ctx) // a cache that is away costs time, not answers: bound what reaches the source here
		}
		verdict, token, wait := reply[0].(int64), "", int64(0)
		var value *string
		if text, is := reply[1].(string); is {
			value = &text
		}
		if len(reply) == 4 {
			token, wait = reply[2].(string), reply[3].(int64)
		}
		if token != "" {
			fresh, err := compute(ctx)
			switch {
			case err != nil:
				client.FCall(ctx, "redoubt_cache_fail", keys, token)
				if verdict < 1 {
					return nil, err
				}
				return value, nil // stale, and the next callers get it too
			case fresh == nil:
				client.FCall(ctx, "redoubt_cache_negative", keys, append([]any{token}, words(tags)...)...)
			default: // 0: overtaken; the value is still ours to use
				client.FCall(ctx, "redoubt_cache_set", keys, append([]any{token, *fresh, ttl}, words(tags)...)...)
			}
			return fresh, nil
		}
		if verdict >= 1 {
			return value, nil
		}
		if verdict == -2 || time.Now().After(deadline) {
			return nil, fmt.Errorf("%s: %w", key, errSourceDown)
		}
		time.Sleep(time.Duration(min(wait, 20)) * time.Millisecond)
	}
}

func words(tags []string) []any {
	all := make([]any, len(tags))
	for at, tag := range tags {
		all[at] = tag
	}
	return all
}

type position struct {
	run    string
	number int64
}

type copyOf struct {
	value *string
	until time.Time
}

// Copies in this process of what the cache said. A message removes one; what may have been missed removes all.
type Copies struct {
	lock   sync.Mutex
	values map[string]copyOf
	heard  position
}

// At is what the server now says of itself, or a message and what it names.
func (copies *Copies) At(now position, removes func()) {
	copies.lock.Lock()
	defer copies.lock.Unlock()
	next := copies.heard
	if removes != nil {
		next.number++
	}
	if next != now {
		clear(copies.values)
	} else if removes != nil {
		removes()
	}
	copies.heard = now
}

func (copies *Copies) hear(message string) {
	parts := strings.SplitN(message, " ", 4)
	number, _ := strconv.ParseInt(parts[1], 10, 64)
	copies.At(position{parts[0], number}, func() {
		if parts[2] == "k" {
			delete(copies.values, parts[3])
		} else {
			clear(copies.values)
		}
	})
}

func (copies *Copies) compare(ctx context.Context) {
	reply, err := client.FCallRO(ctx, "redoubt_caches_position", []string{}, prefix).Slice()
	if err != nil {
		copies.At(position{}, nil) // unknown: nothing is copied until it answers
		return
	}
	copies.At(position{reply[0].(string), reply[1].(int64)}, nil)
}

// Listen hears messages until the context ends.
func (copies *Copies) Listen(ctx context.Context) {
	subscriber := client.Subscribe(ctx, field("channel"))
	defer subscriber.Close()
	messages, ask := subscriber.ChannelWithSubscriptions(), time.NewTicker(5*time.Second)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ask.C:
			copies.compare(ctx)
		case message := <-messages:
			switch message := message.(type) {
			case *redis.Subscription: // again after each lost connection
				copies.compare(ctx)
			case *redis.Message:
				copies.hear(message.Payload)
			}
		}
	}
}

// Get is Cached, from a copy if there is one.
func (copies *Copies) Get(ctx context.Context, key string, compute Compute, tags ...string) (*string, error) {
	copies.lock.Lock()
	known, heard := copies.values[key], copies.heard
	copies.lock.Unlock()
	if time.Now().Before(known.until) {
		return known.value, nil
	}
	value, err := Cached(ctx, key, compute, "", tags...)
	copies.lock.Lock()
	defer copies.lock.Unlock()
	if err == nil && heard.run != "" && heard == copies.heard { // else it may be from before an invalidation
		copies.values[key] = copyOf{value, time.Now().Add(copied)}
	}
	return value, err
}

func (copies *Copies) has(key string) bool {
	copies.lock.Lock()
	defer copies.lock.Unlock()
	_, is := copies.values[key]
	return is
}

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	key := prefix + "{0}go"
	var computed atomic.Int64
	source := func(context.Context) (*string, error) {
		value := fmt.Sprint("value ", computed.Add(1))
		return &value, nil
	}
	var readers sync.WaitGroup
	for range 8 {
		readers.Add(1)
		go func() { defer readers.Done(); Cached(ctx, key, source, "", "shop") }()
	}
	readers.Wait()
	if computed.Load() == 1 {
		fmt.Println("one computed")
	}
	client.FCall(ctx, "redoubt_cache_invalidate_tag", []string{prefix + "{0}"}, "shop")
	value, _ := Cached(ctx, key, source, "20", "shop")
	fmt.Println(*value)
	time.Sleep(50 * time.Millisecond)
	down := func(context.Context) (*string, error) { return nil, errSourceDown }
	first, _ := Cached(ctx, key, down, "")
	second, _ := Cached(ctx, key, down, "")
	fmt.Println("stale", *first, *second)
	if _, err := Cached(ctx, key+" gone", down, ""); errors.Is(err, errSourceDown) {
		fmt.Println("down")
	}

	copies := &Copies{values: map[string]copyOf{}}
	go copies.Listen(ctx)
	other := prefix + "{0}go copy"
	fill := func() {
		for !copies.has(other) {
			copies.Get(ctx, other, func(context.Context) (*string, error) { value := "copied"; return &value, nil })
		}
	}
	fill()
	client.FCall(ctx, "redoubt_cache_invalidate", []string{other})
	for copies.has(other) {
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Println("told")
	fill()
	copies.hear("1 1 k another run")
	if !copies.has(other) {
		fmt.Println("noticed")
	}
}
