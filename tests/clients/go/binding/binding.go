// Package binding reads what the binding Secret says, and makes a client of it.
package binding

import (
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Field answers a field of the binding that the program's first argument names.
func Field(name string) string {
	text, err := os.ReadFile(filepath.Join(os.Getenv("SERVICE_BINDING_ROOT"), os.Args[1], name))
	if err != nil {
		log.Fatal(err)
	}
	return string(text)
}

// Connect answers a client with at most so many connections, through Sentinel where the binding names some.
func Connect(connections int) *redis.Client {
	if _, err := os.Stat(filepath.Join(os.Getenv("SERVICE_BINDING_ROOT"), os.Args[1], "sentinels")); err != nil {
		return redis.NewClient(&redis.Options{
			Addr: Field("host") + ":" + Field("port"), Username: Field("username"), Password: Field("password"), PoolSize: connections,
		})
	}
	return redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: Field("master-name"), SentinelAddrs: strings.Split(Field("sentinels"), ","),
		SentinelUsername: Field("sentinel-username"), SentinelPassword: Field("sentinel-password"),
		Username: Field("username"), Password: Field("password"), PoolSize: connections,
	})
}
