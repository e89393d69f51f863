// Logs a user in to the session store of a binding.
package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

func field(name string) string {
	text, err := os.ReadFile(filepath.Join(os.Getenv("SERVICE_BINDING_ROOT"), "web", name))
	if err != nil {
		log.Fatal(err)
	}
	return string(text)
}

func main() {
	ctx := context.Background()
	client := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: field("master-name"), SentinelAddrs: strings.Split(field("sentinels"), ","),
		SentinelUsername: field("sentinel-username"), SentinelPassword: field("sentinel-password"),
		Username: field("username"), Password: field("password"),
		DialTimeout: 500 * time.Millisecond, ReadTimeout: time.Second, WriteTimeout: time.Second,
		MaxRetries: 10, MinRetryBackoff: 20 * time.Millisecond, MaxRetryBackoff: 250 * time.Millisecond,
	})
	defer client.Close()

	user, token := "ada", rand.Text()
	key := fmt.Sprintf("%s{%.4x}s:%s", field("prefix"), sha256.Sum256([]byte(user)), token)
	if err := client.FCall(ctx, "redoubt_session_create", []string{key}, user, "role", "admin").Err(); err != nil {
		log.Fatal(err)
	}
	session, err := client.FCall(ctx, "redoubt_session_get", []string{key}).Slice()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(session[3], session[4]) // after the version, and when it was created and ends

	// For whom measures a failover: reads on for so long, and says how long the longest call took.
	stay, _ := strconv.Atoi(os.Getenv("STAY_SECONDS"))
	longest := time.Duration(0)
	for end := time.Now().Add(time.Duration(stay) * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		began := time.Now()
		if err := client.FCall(ctx, "redoubt_session_get", []string{key}).Err(); err != nil {
			log.Fatal(err)
		}
		longest = max(longest, time.Since(began))
	}
	if longest > 0 {
		fmt.Println("longest call", longest.Milliseconds(), "ms")
	}
}
