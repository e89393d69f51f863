# Rails' cache store on redis-rb, as an application has it, through Sentinel where the binding names some.
# Prints one line for each claim that held; the first that does not ends it.
require "active_support"
require "active_support/core_ext"
require "active_support/cache"
require "redis"

$stdout.sync = true
FOLDER = File.join(ENV.fetch("SERVICE_BINDING_ROOT"), ARGV.fetch(0))

def field(name) = File.read(File.join(FOLDER, name))

def held(claim) = puts(claim)

def check(holds, what = nil)
  raise "does not hold: #{what}" unless holds
end

def connect
  user = {username: field("username"), password: field("password")}
  return Redis.new(host: field("host"), port: field("port").to_i, **user) unless File.exist?(File.join(FOLDER, "sentinels"))

  of_sentinel = {username: field("sentinel-username"), password: field("sentinel-password")}
  seeds = field("sentinels").split(",").map do |seed|
    host, port = seed.split(":")
    {host: host, port: port.to_i, **of_sentinel}
  end
  Redis.new(url: "redis://#{field("master-name")}", sentinels: seeds, role: :master, **user)
end

redis = connect
prefix = field("prefix")
errors = []
told = ->(method:, returning:, exception:) { errors << exception.message }
# Keys are NAMESPACE:NAME, so the colon of the cache's prefix is Rails'.
store = ActiveSupport::Cache::RedisCacheStore.new(redis: redis, namespace: prefix.chomp(":"), expires_in: 300, error_handler: told)

store.write("page", {"title" => "one"})
check(redis.exists?("#{prefix}page"))
check(store.read("page") == {"title" => "one"})
held("set and read under the prefix")
check((290..300).cover?(redis.ttl("#{prefix}page")))
held("every key ends")
store.write_multi({"a" => 1, "b" => 2})
check(store.read_multi("a", "b", "c") == {"a" => 1, "b" => 2})
store.delete_multi(["a", "b"])
check(store.fetch("fetched") { "computed" } == "computed")
check(store.fetch("fetched") { "again" } == "computed")
store.delete("count") # of the run before
check(store.increment("count", 2) == 2 && store.increment("count") == 3)
check(redis.ttl("#{prefix}count").positive?)
held("many, fetch, delete, increment")
store.delete("page")
store.write("page", "old")
check(store.read("page") == "old")
held("a late set brings back what was invalidated")
store.delete("page")
check(store.read("page").nil? && store.read("page").nil?)
held("every caller that misses computes")
store.write("raced", "old", expires_in: 1, race_condition_ttl: 10)
ends = Time.now + 1.01
sleep 0.01 until Time.now > ends
meanwhile = nil
fresh = store.fetch("raced", expires_in: 300, race_condition_ttl: 10) do
  meanwhile = store.read("raced")
  "new"
end
check([fresh, meanwhile, store.read("raced")] == ["new", "old", "new"], [fresh, meanwhile])
held("while one computes what ended, the others get the old value: race_condition_ttl")
check(errors.empty?, errors)
store.clear
check(errors.length == 1 && errors[0].start_with?("NOPERM"), errors)
check(store.read("raced") == "new")
held("clear is refused, and nothing is gone")
begin
  redis.get("other:key")
  raise "served"
rescue Redis::CommandError => error
  check(error.message.start_with?("NOPERM"), error.message)
end
held("refused outside of the prefix")
