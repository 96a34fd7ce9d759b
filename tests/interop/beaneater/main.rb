# What a Ruby worker does: jobs that succeed, fail, come later, and survive the daemon.
require 'beaneater'

ADDRESS = "#{ENV.fetch('BEANSTALK_HOST')}:#{ENV.fetch('BEANSTALK_PORT')}".freeze
PATIENCE_SECONDS = 10

def same(expected, found, what)
  raise "#{what}: #{found.inspect}, not #{expected.inspect}" unless expected == found
end

def raises(error)
  yield
rescue error
  nil
else
  raise "no #{error}"
end

def connect
  client = Beaneater.new(ADDRESS)
  yield client
ensure
  client&.close
end

def restart
  Process.kill(:KILL, File.read(ENV.fetch('PHPMQD_PID_FILE')).to_i)
  sleep 0.02
  deadline = Time.now + PATIENCE_SECONDS
  begin
    connect(&:stats)
  rescue StandardError
    raise if Time.now > deadline
    sleep 0.02
    retry
  end
end

TESTS = {
  'jobs come by priority and age' => lambda do
    connect do |client|
      tube = client.tubes['order']
      tube.put('a', pri: 5)
      tube.put('b', pri: 1)
      tube.put('c', pri: 5)
      same('b', tube.peek(:ready).body, 'peek')
      bodies = Array.new(3) { tube.reserve(0).tap(&:delete).body }
      same(%w[b a c], bodies, 'order')
      raises(Beaneater::TimedOutError) { tube.reserve(0) }
    end
  end,

  'jobs are released, delayed, touched, buried and kicked' => lambda do
    connect do |client|
      tube = client.tubes['moves']
      tube.put('work', ttr: 5)
      job = tube.reserve(0)
      same(true, job.touch[:status] == 'TOUCHED', 'touch')
      job.release(pri: 7, delay: 1)
      same('delayed', job.stats.state, 'state')
      started = Time.now
      job = tube.reserve(5)
      took = Time.now - started
      raise "came after #{took} s" unless took.between?(0.8, 2)
      job.bury
      same(1, tube.stats.current_jobs_buried, 'buried')
      same('work', tube.peek(:buried).body, 'peek')
      same(1, tube.kick(3)[:id].to_i, 'kicked')
      job = tube.reserve(0)
      same([3, 1, 1, 1], %i[reserves releases buries kicks].map { |key| job.stats[key] }, 'counts')
      job.delete
      raises(Beaneater::NotFoundError) { job.stats }
    end
  end,

  'a worker processes what is registered for its tubes' => lambda do
    connect do |client|
      done = []
      client.tubes['mail'].put('ann')
      client.tubes['mail'].put('fail')
      client.tubes['sms'].put('bob')
      client.tubes['mail'].put('stop', pri: 2**32 - 1)
      client.jobs.register('mail') do |job|
        raise Beaneater::AbortProcessingError if job.body == 'stop' && job.delete
        raise 'can not be sent' if job.body == 'fail'
        done << job.body
      end
      client.jobs.register('sms') { |job| done << job.body }
      client.jobs.process!(reserve_timeout: 2)
      same(%w[ann bob], done.sort, 'done')
      same(1, client.tubes['mail'].stats.current_jobs_buried, 'failed ones are buried')
      client.tubes['mail'].clear
      same(0, client.tubes['mail'].stats.current_jobs_buried, 'cleared')
    end
  end,

  'tubes are watched, listed and paused' => lambda do
    connect do |client|
      client.tubes.watch!('one', 'two')
      same(%w[one two], client.tubes.watched.map(&:name).sort, 'watched')
      client.tubes.use('one')
      same('one', client.tubes.used.name, 'used')
      same([], %w[default one two] - client.tubes.all.map(&:name), 'listed')
      tube = client.tubes['one']
      tube.pause(1)
      same(1, tube.stats.pause, 'pause')
      tube.put('held up')
      raises(Beaneater::TimedOutError) { client.tubes.reserve(0) }
      client.tubes.reserve(3).delete
    end
  end,

  'what a lost worker held goes to the next' => lambda do
    connect do |client|
      connect do |lost|
        lost.tubes['lost'].put('work')
        lost.tubes['lost'].reserve(0)
        raises(Beaneater::TimedOutError) { client.tubes['lost'].reserve(0) }
      end
      same('work', client.tubes['lost'].reserve(2).tap(&:delete).body, 'body')
    end
  end,

  'statistics are YAML' => lambda do
    connect do |client|
      stats = client.stats
      same([false, 16 * 1024 * 1024], [stats.draining, stats.max_job_size], 'values')
      same([String, String], [stats.version.class, stats.os.class], 'texts')
      same(51, stats.keys.size, 'keys')
    end
  end,

  'jobs survive a kill, and the client reconnects by itself' => lambda do
    connect do |client|
      tube = client.tubes['kept']
      20.times { |n| tube.put("job #{n}") }
      tube.reserve(0)
      restart
      same(20, tube.stats.current_jobs_ready, 'ready')
      bodies = Array.new(20) { tube.reserve(0).tap(&:delete).body }
      same(Array.new(20) { |n| "job #{n}" }, bodies, 'bodies')
    end
  end
}.freeze

failed = 0
TESTS.each do |name, test|
  test.call
  puts "ok    #{name}"
rescue StandardError => e
  failed += 1
  puts "FAIL  #{name}: #{e.class}: #{e.message} (#{e.backtrace.grep(/main.rb/).first})"
end
puts "#{TESTS.size - failed} passed, #{failed} failed"
exit(failed.zero?)
